"""A fine-tuning service for tests of single rules: one tunable model, and jobs that end after a few looks at them."""

import json
import re
from dataclasses import dataclass, field
from email.parser import BytesParser
from typing import Any

from tests.loopback import Request, Response

MODEL = "gpt-4.1-mini-2025-04-14"
CSV = (
    "step,train_loss,train_accuracy,valid_loss,validation_mean_token_accuracy,full_valid_loss\n"
    "1,2.0,0.5,-1,,\n2,1.5,0.6,1.75,0.55,1.8\n"
)


@dataclass
class Tuning:
    """Call it with a request. `script` is what a job's status says at one look after the other."""

    azure: bool = False
    script: list[str] = field(default_factory=lambda: ["queued", "running", "running", "succeeded"])
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    looks: dict[str, int] = field(default_factory=dict)
    file_states: list[str] = field(default_factory=lambda: ["processed"])
    numbers: dict[str, float] = field(default_factory=dict)  # hyperparameters, before the job has ended
    parts: dict[str, Any] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, request: Request) -> Response:
        path = re.sub(r"^/openai(/v1)?|^/v1", "", request.path)
        match (request.method, *path.strip("/").split("/")):
            case ("GET", "models"):
                own = [self.model(f"ft:{MODEL}:org::{name}", True) for name in self.jobs]
                return self.page([self.model(MODEL, True), self.model("text-embedding-3", False), *own])
            case ("POST", "files"):
                return self.upload(request)
            case ("POST", "files", "import"):
                return self.keep(request.json()["filename"], b"imported")
            case ("POST", "uploads"):
                self.parts = {"name": request.json()["filename"]}
                return Response(200, {"id": "upload-1", "object": "upload", "status": "pending"})
            case ("POST", "uploads", _, "parts"):
                self.parts[f"part-{len(self.parts)}"] = self.payload(request)
                return Response(200, {"id": f"part-{len(self.parts) - 1}", "object": "upload.part"})
            case ("POST", "uploads", _, "complete"):
                whole = b"".join(self.parts[part] for part in request.json()["part_ids"])
                return Response(200, {"id": "upload-1", "file": self.keep(self.parts["name"], whole).body})
            case ("GET", "files"):
                return self.page(list(self.files.values()))
            case ("GET", "files", name, "content"):
                return Response(200, CSV.encode(), {"Content-Type": "text/csv"})
            case ("GET", "files", name):
                return self.file(name)
            case ("DELETE", "files" | "models" as kind, name):
                self.files.pop(name, None)
                return Response(200, {"id": name, "object": kind[:-1], "deleted": True})
            case ("POST", "fine_tuning", "jobs"):
                return self.create(request.json())
            case ("GET", "fine_tuning", "jobs"):
                return self.page([self.shown(name) for name in reversed(self.jobs)])
            case (_, "fine_tuning", "jobs", name, *rest) if name in self.jobs:
                return self.of_job(request, name, rest)
            case ("POST", "chat", "completions"):
                return self.chat(request.json())
        return Response(404, {"error": {"code": "NotFound", "message": f"no {path}"}})

    def model(self, name: str, tunes: bool) -> dict[str, Any]:
        own = {"id": name, "object": "model", "created": 1, "owned_by": "system"}
        ends = {"fine_tune": 1_900_000_000, "inference": 1_950_000_000}
        return own | ({"capabilities": {"fine_tune": tunes}, "deprecation": ends} if self.azure else {})

    @staticmethod
    def page(items: list[dict[str, Any]]) -> Response:
        return Response(200, {"object": "list", "data": items, "has_more": False})

    def upload(self, request: Request) -> Response:
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        for part in BytesParser().parsebytes(head + request.body).get_payload():
            if name := part.get_filename():  # type: ignore[union-attr]
                return self.keep(name, part.get_payload(decode=True))  # type: ignore[union-attr, arg-type]
        return Response(400)

    @staticmethod
    def payload(request: Request) -> bytes:
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        [part] = BytesParser().parsebytes(head + request.body).get_payload()
        return part.get_payload(decode=True)  # type: ignore[return-value, union-attr]

    def keep(self, name: str, content: bytes) -> Response:
        made = {"id": f"file-{len(self.files) + 1}", "object": "file", "bytes": len(content), "created_at": 1}
        made |= {"filename": name, "purpose": "fine-tune", "status": "uploaded"}
        self.files[made["id"]], self.contents[made["id"]] = made, content
        return Response(201 if self.azure else 200, made)

    def file(self, name: str) -> Response:
        if name not in self.files:
            return Response(404, {"error": {"code": "NotFound", "message": "no such file"}})
        state = self.file_states.pop(0) if len(self.file_states) > 1 else self.file_states[0]
        details = {"status_details": "invalid schema at line 2"} if state == "error" else {}
        return Response(200, self.files[name] | {"status": state} | details)

    def create(self, body: dict[str, Any]) -> Response:
        name = f"ftjob-{len(self.jobs) + 1}"
        self.bodies.append(body)
        keys = ("model", "training_file", "validation_file", "metadata", "method", "seed")
        self.jobs[name] = {"id": name, "object": "fine_tuning.job", "created_at": 1_700_000_000} | {
            key: body.get(key) for key in keys
        }
        self.looks[name] = -1
        return Response(201 if self.azure else 200, self.shown(name))

    def shown(self, name: str) -> dict[str, Any]:
        status = self.script[min(max(self.looks[name], 0), len(self.script) - 1)]
        ended = status == "succeeded"
        job = self.jobs[name] | {"status": status, "result_files": ["file-result"] if ended else None}
        job |= {"fine_tuned_model": f"ft:{MODEL}:org::{name}" if ended else None, "organization_id": None}
        job |= {"trained_tokens": 1234 if ended else None, "finished_at": 1_700_000_100 if ended else None}
        if status == "failed":
            job["error"] = {"code": "invalid", "message": "the rows are unsafe", "param": "training_file"}
        numbers = {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 0.5}
        return job | {"hyperparameters": numbers if ended else self.numbers, "seed": 7 if ended else job.get("seed")}

    def of_job(self, request: Request, name: str, rest: list[str]) -> Response:
        match (request.method, *rest):
            case ("GET",):
                self.looks[name] = min(self.looks[name] + 1, len(self.script) - 1)
                return Response(200, self.shown(name))
            case ("DELETE",):
                self.jobs.pop(name)
                return Response(204)
            case ("GET", "events"):
                return self.page(list(reversed(self.events(name))))
            case ("GET", "checkpoints"):
                return self.page(self.checkpoints(name))
            case ("POST", verb):
                self.script = {
                    "pause": ["pausing", "paused"], "resume": ["running", "succeeded"], "cancel": ["cancelled"],
                }[verb]  # fmt: skip
                self.looks[name] = 0
                return Response(200, self.shown(name))
        return Response(404)

    def events(self, name: str) -> list[dict[str, Any]]:
        looks = self.looks[name] + 1
        told: list[dict[str, Any]] = [
            {"id": f"ev-{number}", "message": f"look {number}", "level": "warn", "type": "message", "data": None}
            for number in range(looks)
        ]
        data = {"step": 1, "train_loss": 2.0, "total_steps": 2, "train_mean_token_accuracy": 0.5, "valid_loss": None}
        measured = {"id": "ev-step", "message": "Step 1/2: training loss=2.00", "level": "info", "type": "metrics"}
        told[2:2] = [measured | {"data": data}] if looks > 2 else []
        own = {"object": "fine_tuning.job.event", "created_at": 1_700_000_000}  # all within one second
        return [own | event for event in told]

    def checkpoints(self, name: str) -> list[dict[str, Any]]:
        if self.looks[name] < 2:
            return []
        metrics = {"step": 2, "train_loss": 1.5, "full_valid_loss": 1.8, "valid_mean_token_accuracy": None}
        made = {"id": "ftckpt-1", "object": "fine_tuning.job.checkpoint", "created_at": 1_700_000_050}
        model = f"ft:{MODEL}:org::{name}:ckpt-step-2"
        return [made | {"fine_tuned_model_checkpoint": model, "step_number": 2, "metrics": metrics}]

    def chat(self, body: dict[str, Any]) -> Response:
        self.answers.append(body)
        text = "tuned answer" if body["model"].startswith("ft:") else "base answer"
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            return Response(200, {"id": "c", "object": "chat.completion", "model": body["model"], "choices": [choice]})
        pieces: list[dict[str, Any]] = [{"content": text[:5]}, {"content": text[5:]}, {}]
        chunks = [
            {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
            | {"choices": [{"index": 0, "delta": piece, "finish_reason": None if piece else "stop"}]}
            for piece in pieces
        ]
        lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        return Response(200, lines.encode(), {"Content-Type": "text/event-stream"})
