"""Files and uploads in parts."""

import hashlib
import json
import urllib.request
from typing import Any

from tests.loopback import Request, Response
from tests.openai_service.state import File, State, Upload
from tests.openai_service.wire import Refused, Route, ends, form, is_old, not_found, page

PROCESSING_SECONDS = 2.0
LIFE_SECONDS = {"openai": 3600, "azure": 7200}  # of an upload that is not completed
FEWEST_ROWS = 10
MOST_PART_BYTES = 64 * 2**20


class Files:
    """Keeps files. `web` is what is to be found at other addresses, for /files/import; `disliked` is in no row."""

    def __init__(self, state: State) -> None:
        self.state, self.web, self.disliked = state, dict[str, bytes](), ""

    def routes(self) -> list[Route]:
        shared = [
            Route("POST", "/files", self.create),
            Route("GET", "/files", self.list),
            Route("GET", "/files/<key>", self.get),
            Route("GET", "/files/<key>/content", self.content),
            Route("DELETE", "/files/<key>", self.delete),
            Route("POST", "/uploads", self.begin),
            Route("POST", "/uploads/<key>/parts", self.add_part),
            Route("POST", "/uploads/<key>/complete", self.complete),
            Route("POST", "/uploads/<key>/cancel", self.cancel),
        ]
        return [Route("POST", "/files/import", self.imports), *shared] if self.state.is_azure else shared

    def find(self, key: str) -> File:
        if key not in self.state.files:
            raise not_found("file", key)
        return self.state.files[key]

    def add(self, filename: str, purpose: str, content: bytes) -> File:
        state = self.state
        key = state.new_id("file-", 32 if state.is_azure else 24)
        problem = problem_of(content, self.disliked) if purpose == "fine-tune" else ""
        state.files[key] = File(key, filename, purpose, content, state.clock.now, problem)
        return state.files[key]

    def create(self, request: Request) -> Response:
        fields = form(request)
        if "file" not in fields or "purpose" not in fields:
            raise Refused(400, "invalid_request", "expected the fields file and purpose", "file")
        name, purpose = fields["file"].filename or "upload", fields["purpose"].content.decode()
        return self._created(self.add(name, purpose, fields["file"].content))

    def imports(self, request: Request) -> Response:
        body = request.json()
        url = body["content_url"]
        if url not in self.web and not url.startswith("http://127.0.0.1:"):
            raise Refused(400, "invalidPayload", f"The content at {url} could not be read.")
        content = self.web[url] if url in self.web else urllib.request.urlopen(url, timeout=10).read()
        return self._created(self.add(body["filename"], body["purpose"], content))

    def list(self, request: Request) -> Response:
        files = [file for file in self.state.files.values() if request.query.get("purpose") in (None, file.purpose)]
        newest = [self.shown(file) for file in sorted(files, key=lambda file: file.created_at, reverse=True)]
        if self.state.is_azure:  # all of them at once
            return Response(200, {"object": "list", "data": newest})
        return Response(200, ends(page(newest, request.query, 10_000), ""))

    def get(self, request: Request, key: str) -> Response:
        return Response(200, self.shown(self.find(key)))

    def content(self, request: Request, key: str) -> Response:
        return Response(200, self.find(key).content, {"Content-Type": "application/octet-stream"})

    def delete(self, request: Request, key: str) -> Response:
        self.find(key)
        del self.state.files[key]
        if self.state.is_azure and is_old(request.query):
            return Response(204)
        return Response(200, {"id": key, "object": "file", "deleted": True})

    def begin(self, request: Request) -> Response:
        body, key = request.json(), self.state.new_id("upload_")
        upload = Upload(key, body["filename"], body["purpose"], body["bytes"], self.state.clock.now)
        self.state.uploads[key] = upload
        return Response(201 if self.state.is_azure else 200, self.shown_upload(upload))

    def add_part(self, request: Request, key: str) -> Response:
        upload, content = self._open(key), form(request)["data"].content
        if len(content) > MOST_PART_BYTES:
            raise Refused(413, "request_too_large", "A part may have at most 64 MB.")
        part = self.state.new_id("part_")
        upload.parts[part] = content
        answer = {"id": part, "object": "upload.part", "created_at": self.state.at, "upload_id": key}
        return Response(200, answer | ({"azureBlockId": part} if self.state.is_azure else {}))

    def complete(self, request: Request, key: str) -> Response:
        upload, body = self._open(key), request.json()
        if unknown := set(body["part_ids"]) - set(upload.parts):
            raise Refused(400, "invalid_request", f"unknown parts: {sorted(unknown)}", "part_ids")
        content = b"".join(upload.parts[part] for part in body["part_ids"])
        if len(content) != upload.num_bytes:
            raise Refused(400, "invalid_request", f"expected {upload.num_bytes} bytes, found {len(content)}", "bytes")
        if (md5 := body.get("md5")) and hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise Refused(400, "invalid_request", "the md5 is that of other bytes", "md5")
        upload.state, upload.file = "completed", self.add(upload.filename, upload.purpose, content)
        return Response(200, self.shown_upload(upload))

    def cancel(self, request: Request, key: str) -> Response:
        upload = self._open(key)
        upload.state = "cancelled"
        return Response(200, self.shown_upload(upload))

    def shown(self, file: File) -> dict[str, Any]:
        """The file as its flavour writes it."""
        done = self.state.clock.now >= file.created_at + PROCESSING_SECONDS
        shown: dict[str, Any] = {
            "id": file.id, "object": "file", "bytes": len(file.content), "created_at": int(file.created_at),
            "filename": file.filename, "purpose": file.purpose,
        }  # fmt: skip
        result = "error" if file.problem else "processed"
        if self.state.is_azure:
            status = result if done else "running" if self.state.clock.now > file.created_at else "pending"
            return shown | {"status": status, "status_details": file.problem or None}
        return shown | {"status": "processed"}  # rows are looked at once a job wants them

    def shown_upload(self, upload: Upload) -> dict[str, Any]:
        expires = int(upload.created_at) + LIFE_SECONDS[self.state.flavour]
        shown = {
            "id": upload.id, "object": "upload", "bytes": upload.num_bytes, "created_at": int(upload.created_at),
            "filename": upload.filename, "purpose": upload.purpose, "status": upload.state, "expires_at": expires,
        }  # fmt: skip
        if upload.file:
            return shown | {"file": self.shown(upload.file)}
        return shown | ({"file": None} if self.state.is_azure else {})

    def _created(self, file: File) -> Response:
        if not self.state.is_azure:
            return Response(200, self.shown(file))
        return Response(201, self.shown(file), {"Location": f"/openai/files/{file.id}"})

    def _open(self, key: str) -> Upload:
        if key not in self.state.uploads:
            raise not_found("upload", key)
        upload = self.state.uploads[key]
        if self.state.clock.now > upload.created_at + LIFE_SECONDS[self.state.flavour]:
            upload.state = "expired"
        if upload.state != "pending":
            raise Refused(400, "invalid_request", f"The upload is {upload.state}.", "upload_id")
        return upload


def rows_of(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.decode("utf-8-sig").splitlines() if line.strip()]


def kind_of(row: dict[str, Any]) -> str:
    """The method that a row is for."""
    return "dpo" if "preferred_output" in row else "supervised"


def messages_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """A chat's messages, or a prompt with the preferred answer."""
    if kind_of(row) == "supervised":
        return list(row["messages"])
    return [*row["input"]["messages"], *row["preferred_output"]]


def read_messages(row: dict[str, Any]) -> list[dict[str, Any]]:
    """What an epoch reads of a row: the prompt of a pair with each answer."""
    if kind_of(row) == "supervised":
        return messages_of(row)
    return [*messages_of(row), *row["input"]["messages"], *row["non_preferred_output"]]


def _problem_of_pair(row: dict[str, Any]) -> str:
    """The preference format as learn.microsoft.com has it: three fields, answers of assistant and tool."""
    if set(row) != {"input", "preferred_output", "non_preferred_output"} or not row["input"]["messages"]:
        return "expected input, preferred_output and non_preferred_output"
    for name in ("preferred_output", "non_preferred_output"):
        roles = [message["role"] for message in row[name]]
        if "assistant" not in roles or set(roles) - {"assistant", "tool"}:
            return f"{name}: expected messages of assistant and tool, with one of assistant"
        if any("weight" in message for message in row[name]):
            return f"{name}: unknown field weight"
    return ""


def problem_of(content: bytes, disliked: str = "") -> str:
    """Why a file of chat or preference rows is rejected; empty where it is not."""
    lines = content.decode("utf-8-sig", "replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if kind_of(row) == "dpo" and (problem := _problem_of_pair(row)):
                return f"Invalid file format. Example {number}: {problem}."
            roles = [message["role"] for message in messages_of(row)]
        except (ValueError, KeyError, TypeError):
            return f"Invalid file format. Line {number}: expected a JSON object with messages."
        if "assistant" not in roles:
            return f"Invalid file format. Example {number}: no message from role assistant."
        if disliked and disliked in line:
            return f"Invalid file format. Line {number}: the content is not accepted."
    if len(lines) < FEWEST_ROWS:
        return f"Training file has {len(lines)} example(s), but must have at least {FEWEST_ROWS} examples."
    return ""
