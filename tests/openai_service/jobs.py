"""Fine-tuning jobs: what is accepted, and how each flavour shows them."""

import random
import re
from collections.abc import Mapping
from typing import Any

from tests.loopback import Request, Response
from tests.openai_service.files import Files, rows_of
from tests.openai_service.models import Models
from tests.openai_service.state import ENDED, Job, State
from tests.openai_service.training import Training
from tests.openai_service.wire import Refused, Route, ends, is_old, not_found, page

# Azure's words for the states of a job; it knows no validating_files.
AZURE_STATES = {"validating_files": "pending", "queued": "pending"}
# The words of each route for a training type; with any other one it cannot read the body, and drops it.
WORDS = {
    "v1": {
        "Standard": "Standard", "GlobalStandard": "GlobalStandard", "DataZoneStandard": "DataZone",
        "Developer": "Developer",
    },
    "dated": {
        "standard": "Standard", "globalStandard": "GlobalStandard", "globalstandard": "GlobalStandard",
        "dataZoneStandard": "DataZone", "developerTier": "Developer",
    },
}  # fmt: skip
UNREAD = "The fineTuningJob field is required."
BOUNDS = {"n_epochs": (1, 50), "batch_size": (1, 256), "learning_rate_multiplier": (1e-9, 1e9), "beta": (1e-9, 2)}
WANDB_FIELDS = {"project", "entity", "name", "tags"}
MOST_WAITING = 20


class Jobs:
    """Keeps jobs. `quota` is how many may wait or run at once; `is_closed`: the account may make no new ones."""

    def __init__(self, state: State, files: Files, models: Models, training: Training) -> None:
        self.state, self.files, self.models, self.training = state, files, models, training
        self.quota, self.is_closed, self.words = MOST_WAITING, False, WORDS
        self.lists_after_seconds = 0.0  # how late a new job appears in lists

    def routes(self) -> list[Route]:
        job = "/fine_tuning/jobs/<key>"
        shared = [
            Route("POST", "/fine_tuning/jobs", self.create),
            Route("GET", "/fine_tuning/jobs", self.list),
            Route("GET", job, self.get),
            Route("GET", f"{job}/events", self.events),
            Route("GET", f"{job}/checkpoints", self.checkpoints),
            Route("POST", f"{job}/cancel", self.cancel),
            Route("POST", f"{job}/pause", self.pause),
            Route("POST", f"{job}/resume", self.resume),
        ]
        return [*shared, Route("DELETE", job, self.delete)] if self.state.is_azure else shared

    def find(self, key: str) -> Job:
        if key not in self.state.jobs:
            raise not_found("fine-tuning job", key)
        return self.state.jobs[key]

    def create(self, request: Request) -> Response:
        body = request.json()
        if self.is_closed:
            raise Refused(403, "fine_tuning_not_available", "This organization may not create new fine-tuning jobs.")
        kind = self._training_type(request, body)
        asked = self._hyperparameters(request, body)
        self._check(body, kind)
        self._check_integrations(body)
        if sum(job.state not in ENDED for job in self.state.jobs.values()) >= self.quota:
            raise Refused(429, "quotaExceeded", f"The resource has {self.quota} jobs waiting or running already.")
        job = self._made(body, asked)
        self.state.jobs[job.id] = job
        first = "Job enqueued. Waiting for jobs ahead to complete." if self.state.is_azure else f"Created job {job.id}"
        self.training.event(job, first)
        location = {"Location": f"{request.path}/{job.id}"} if self.state.is_azure else {}
        return Response(201 if self.state.is_azure else 200, self.shown(job, request.query), location)

    def list(self, request: Request) -> Response:
        now = self.state.clock.now
        jobs = [job for job in self.state.jobs.values() if now >= job.created_at + self.lists_after_seconds]
        if not self.state.is_azure:  # where nobody says that Azure knows the filter, it ignores it
            for name, value in request.query.items():
                if key := re.fullmatch(r"metadata\[(.+)\]", name):
                    jobs = [job for job in jobs if (job.asked.get("metadata") or {}).get(key[1]) == value]
        newest = [self.shown(job, request.query) for job in reversed(jobs)]
        return Response(200, page(newest, request.query, 20))

    def events(self, request: Request, key: str) -> Response:
        return Response(200, page(self.find(key).events[::-1], request.query, 20))

    def checkpoints(self, request: Request, key: str) -> Response:
        newest = self.find(key).checkpoints[::-1]
        return Response(200, ends(page(newest, request.query, 10), None))

    def get(self, request: Request, key: str) -> Response:
        return self._answer(request, self.find(key))

    def cancel(self, request: Request, key: str) -> Response:
        job = self.find(key)
        if job.state in ENDED:
            raise Refused(400, "invalid_request", f"Job has already completed: {job.state}", "id")
        self.training.cancel(job)
        return self._answer(request, job)

    def pause(self, request: Request, key: str) -> Response:
        job = self.find(key)
        if job.state != "running" or not job.step:
            raise Refused(400, "invalid_request", "Only a running job that has finished a step can be paused.", "id")
        job.state = "pausing"
        return self._answer(request, job)

    def resume(self, request: Request, key: str) -> Response:
        job = self.find(key)
        if job.state != "paused":
            raise Refused(400, "invalid_request", f"Only a paused job can be resumed, this one is {job.state}.", "id")
        job.state = "running"
        self.training.event(job, "Job resumed.")
        return self._answer(request, job)

    def delete(self, request: Request, key: str) -> Response:
        if self.find(key).state not in ENDED:
            raise Refused(409, "conflict", "A job that has not ended cannot be deleted.")
        del self.state.jobs[key]
        return Response(204)

    def shown(self, job: Job, query: Mapping[str, str]) -> dict[str, Any]:
        hyperparameters: dict[str, Any] = {
            "n_epochs": job.n_epochs, "batch_size": job.batch_size,
            "learning_rate_multiplier": job.learning_rate_multiplier,
        }  # fmt: skip
        shown: dict[str, Any] = {
            "id": job.id, "object": "fine_tuning.job", "created_at": int(job.created_at), "error": job.error,
            "fine_tuned_model": job.fine_tuned_model, "model": job.model, "training_file": job.training_file,
            "finished_at": None if job.finished_at is None else int(job.finished_at),
            "validation_file": job.validation_file, "seed": job.seed, "trained_tokens": job.trained_tokens,
            "hyperparameters": hyperparameters, "result_files": job.result_files, "status": job.state,
        }  # fmt: skip
        if not self.state.is_azure:
            more_numbers = {"beta": job.beta} if job.method == "dpo" else {}
            method = {"type": job.method, job.method: {"hyperparameters": hyperparameters | more_numbers}}
            more = {"organization_id": "org-demo", "estimated_finish": None, "method": method}
            more |= {"integrations": job.asked.get("integrations") or []}
            return shown | more | {"metadata": job.asked.get("metadata")}
        shown |= {"status": AZURE_STATES.get(job.state, job.state), "result_files": job.result_files or None}
        if is_old(query):
            return shown | {"suffix": job.asked.get("suffix"), "organization_id": None, "estimated_finish": None}
        more = {"organization_id": None, "estimated_finish": None, "integrations": job.asked.get("integrations")}
        return shown | more | {"metadata": job.asked.get("metadata"), "trainingType": job.asked.get("trainingType")}

    def _answer(self, request: Request, job: Job) -> Response:
        return Response(200, self.shown(job, request.query))

    def _hyperparameters(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        """What was asked for; `auto` is absent."""
        method, flat = body.get("method"), body.get("hyperparameters")
        if self.state.is_azure and is_old(request.query):
            if method is not None:
                raise Refused(400, "invalidPayload", "Unknown field 'method' for this api-version.")
            wrong = [f"{name}={value!r}" for name, value in (flat or {}).items() if isinstance(value, str)]
            if wrong:
                raise Refused(400, "invalidPayload", f"hyperparameters: expected numbers, found {', '.join(wrong)}")
            asked = {name: value for name, value in (flat or {}).items() if value != -1}
        elif (kind := (method or {}).get("type", "supervised")) not in ("supervised", "dpo"):
            raise Refused(400, "invalid_request", f"method {kind!r} is not available", "method")
        else:
            asked = ((method or {}).get(kind) or {}).get("hyperparameters") or flat or {}
            if kind != "dpo" and "beta" in asked:
                raise Refused(400, "invalid_request", "hyperparameters.beta: belongs to the method dpo", "beta")
        asked = {name: value for name, value in asked.items() if value not in (None, "auto")}
        for name, value in asked.items():
            least, most = BOUNDS.get(name, (None, None))
            if least is None or most is None or not least <= value <= most:
                raise Refused(400, "invalid_request", f"hyperparameters.{name}: {value!r} is not accepted", name)
        return asked

    def _training_type(self, request: Request, body: dict[str, Any]) -> str | None:
        """The training type that is asked for; the stable version has no such field, and None is one left out."""
        if not self.state.is_azure:
            return "Standard"
        if not is_old(request.query):
            words = self.words["v1"]
        elif request.query["api-version"] < "2025-04-01":
            return "Standard"
        else:
            words = self.words["dated"]
        word = body.get("trainingType")
        if word is not None and word not in words:
            raise Refused(400, "invalidPayload", UNREAD)
        return None if word is None else words[word]

    def _check(self, body: dict[str, Any], kind: str | None) -> None:
        is_azure, name = self.state.is_azure, str(body.get("model"))
        base = self.models.find_base(name)
        if base is None or not self.models.can_be_tuned(name) or (kind is None and base.format == "OpenAI"):
            raise Refused(400, "invalidPayload", "The specified base model does not support fine-tuning.", "model")
        if is_azure and (kind := kind or "Standard") not in self.models.types_of(base):
            message = f"The specified base model {name} does not support fine-tuning with {kind} TrainingType."
            raise Refused(400, "invalidPayload", message, "model")
        method = (body.get("method") or {}).get("type", "supervised")
        if method not in base.methods:
            message = f"Finetuning with {name} requires the {base.methods[0]} method of finetuning."
            raise Refused(400, "invalidPayload", message, "method")
        suffix = body.get("suffix")
        if suffix is not None:
            if is_azure and not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", suffix):
                raise Refused(400, "invalidPayload", "suffix: expected up to 40 letters, digits, - and _.", "suffix")
            if not 1 <= len(suffix) <= 64:
                raise Refused(400, "invalid_request", "suffix: expected 1 to 64 characters", "suffix")
        for name in ("training_file", "validation_file"):
            if (key := body.get(name)) is None and name == "validation_file":
                continue
            if key not in self.state.files:
                raise Refused(400, "file_not_found", f"{name}: no file {key!r}", name)
            shown = self.files.shown(self.state.files[key])
            if is_azure and shown["status"] != "processed":
                raise Refused(400, "invalidPayload", f"{name}: the file {key} is {shown['status']}, not processed.")

    def _check_integrations(self, body: dict[str, Any]) -> None:
        for integration in body.get("integrations") or []:
            wandb = integration.get("wandb") or {}
            if integration.get("type") != "wandb" or not wandb.get("project") or wandb.keys() - WANDB_FIELDS:
                raise Refused(400, "invalid_request", f"integrations: {integration!r} is not accepted", "integrations")

    def _made(self, body: dict[str, Any], asked: dict[str, Any]) -> Job:
        state = self.state
        key = state.new_id("ftjob-", 32 if state.is_azure else 24)
        file, validation = state.files[body["training_file"]], state.files.get(body.get("validation_file") or "")
        rows = [] if file.problem else rows_of(file.content)
        validation_rows = [] if validation is None or validation.problem else rows_of(validation.content)
        seed = body.get("seed")
        return Job(
            key, body["model"], file.id, validation.id if validation else None, body, rows, validation_rows,
            n_epochs=asked.get("n_epochs") or max(3, min(25, 100 // max(1, len(rows)))),
            batch_size=asked.get("batch_size") or max(1, round(len(rows) * 0.002)),
            learning_rate_multiplier=asked.get("learning_rate_multiplier") or (1.8 if not state.is_azure else 1),
            method=(body.get("method") or {}).get("type", "supervised"), beta=asked.get("beta") or 0.1,
            seed=random.Random(key).randrange(2**31) if seed is None else seed, created_at=state.clock.now,
        )  # fmt: skip
