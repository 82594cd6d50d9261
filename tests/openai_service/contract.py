"""Hold every request and answer against an OpenAPI document, and every answer against the SDK's own models.

The document is found through TRAINER_SPECS and stays where it is. It says 3.1 and keeps words of 3.0 (`nullable`, a
boolean `exclusiveMinimum`), which are rewritten before JSON Schema reads them.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from openai.types import FileDeleted, FileObject, Model, ModelDeleted, Upload
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from openai.types.uploads import UploadPart
from pydantic import BaseModel, ValidationError

from tests.loopback import Request, Response
from tests.openai_service.wire import form

NAME = "openai-finetune-trimmed.json"
ONES: dict[str, type[BaseModel]] = {  # the SDK's model for an answer's `object`
    "file": FileObject, "upload": Upload, "upload.part": UploadPart, "fine_tuning.job": FineTuningJob,
    "fine_tuning.job.event": FineTuningJobEvent, "fine_tuning.job.checkpoint": FineTuningJobCheckpoint,
    "model": Model, "chat.completion": ChatCompletion, "chat.completion.chunk": ChatCompletionChunk,
}  # fmt: skip
DELETED: dict[str, type[BaseModel]] = {"file": FileDeleted, "model": ModelDeleted}


@dataclass(frozen=True, order=True)
class Finding:
    """Where something is not as the contract has it. `place`: request, answer, status, path or sdk, and the field."""

    operation: str
    place: str
    message: str


def document() -> Path | None:
    """The OpenAPI document, None where TRAINER_SPECS does not lead to one."""
    folder = os.environ.get("TRAINER_SPECS")
    found = Path(folder) / NAME if folder else None
    return found if found and found.is_file() else None


class Contract:
    """Watches a service. `document` None: only the SDK's models are asked."""

    def __init__(self, path: Path | None) -> None:
        self.findings, self.seen = list[Finding](), dict[str, int]()
        self.spec = _modern(json.loads(path.read_text(encoding="utf-8"))) if path else None

    def __call__(self, path: str, request: Request, response: Response) -> None:
        found = self._operation(request.method, path)
        name = f"{request.method} {found[0] if found else path}"
        self.seen[name] = self.seen.get(name, 0) + 1
        for answer in _answers(response):
            self._find(name, sdk_problems(answer))
        if self.spec is None:
            return
        if found is None:
            self._find(name, [("path", "is not in the document")])
            return
        operation = found[1]
        self._find(name, self._request_problems(operation, request))
        self._find(name, self._answer_problems(operation, response))

    def _find(self, name: str, problems: list[tuple[str, str]]) -> None:
        self.findings += [Finding(name, place, message) for place, message in problems]

    def _operation(self, method: str, path: str) -> tuple[str, dict[str, Any]] | None:
        for template, operations in (self.spec or {}).get("paths", {}).items():
            pattern = re.sub(r"\{\w+\}", "[^/]+", template)
            if method.lower() in operations and re.fullmatch(pattern, unquote(path)):
                return template, operations[method.lower()]
        return None

    def _request_problems(self, operation: dict[str, Any], request: Request) -> list[tuple[str, str]]:
        names = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"}
        known = {re.sub(r"\[.*\]$", "", name) for name in request.query}
        problems = [(f"request ?{name}", "is not in the document") for name in sorted(known - names)]
        content = operation.get("requestBody", {}).get("content", {})
        if schema := content.get("application/json", {}).get("schema"):
            problems += self._problems("request", schema, request.json())
        elif schema := content.get("multipart/form-data", {}).get("schema"):
            fields = {name: field.content.decode("latin-1") for name, field in form(request).items()}
            problems += self._problems("request", schema, _nested(fields))
        return problems

    def _answer_problems(self, operation: dict[str, Any], response: Response) -> list[tuple[str, str]]:
        content = operation["responses"].get(str(response.status), {}).get("content")
        if content is None:
            expected = ", ".join(operation["responses"])
            return [("status", f"is {response.status}, expected {expected}"), *self._success(operation, response)]
        kind = response.headers.get("Content-Type", "application/json")
        if kind not in content:
            return [("answer", f"is {kind}, expected {', '.join(content)}")]
        return [
            problem
            for body in _answers(response)
            for problem in self._problems("answer", content[kind]["schema"], body)
        ]

    def _success(self, operation: dict[str, Any], response: Response) -> list[tuple[str, str]]:
        """The body's problems where only the status is another one."""
        content = operation["responses"]["200"]["content"].get("application/json", {})
        bodies = _answers(response) if response.body is not None and content else []
        return [problem for body in bodies for problem in self._problems("answer", content["schema"], body)]

    def _problems(self, place: str, schema: dict[str, Any], value: Any) -> list[tuple[str, str]]:
        assert self.spec is not None
        validator = Draft202012Validator({"components": self.spec["components"], **schema})
        found = []
        for error in validator.iter_errors(value):
            field = ".".join("*" if isinstance(part, int) else str(part) for part in error.absolute_path)
            found.append((f"{place} {field}".strip(), error.message[:160]))
        return found


def sdk_problems(value: Any) -> list[tuple[str, str]]:
    """What the installed SDK's models say of an answer; lists are looked at item by item."""
    if not isinstance(value, dict):
        return []
    if value.get("object") == "list":
        return [problem for item in value["data"] for problem in sdk_problems(item)]
    model = (DELETED if value.get("deleted") else ONES).get(str(value.get("object")))
    if model is None:
        return [("sdk", f"knows no object {value.get('object')!r}")]
    try:
        model.model_validate(value)
    except ValidationError as error:
        return [(f"sdk {'.'.join(map(str, one['loc']))}", one["msg"]) for one in error.errors()]
    return []


def _answers(response: Response) -> list[Any]:
    """The JSON values of an answer: one, or those of a stream of events; none of a file's content."""
    if not isinstance(response.body, bytes):
        return [] if response.body is None else [response.body]
    if response.headers.get("Content-Type") != "text/event-stream":
        return []
    lines = [line.removeprefix("data: ") for line in response.body.decode().splitlines() if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def _nested(fields: dict[str, str]) -> dict[str, Any]:
    """A form's fields, of which `a[b]` is the part b of an object a, as the SDK writes objects."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        outer, bracket, inner = name.partition("[")
        if bracket:
            found.setdefault(outer, {})[inner.removesuffix("]")] = int(value) if value.isdecimal() else value
        else:
            found[name] = value
    return found


def _modern(value: Any) -> Any:
    """The document in words of JSON Schema 2020-12."""
    if isinstance(value, list):
        return [_modern(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {name: _modern(item) for name, item in value.items()}
    if found.get("exclusiveMinimum") is True:
        found["exclusiveMinimum"] = found.pop("minimum")
    if {"nullable": True} in found.get("allOf", []):  # allOf: [a reference, {nullable: true}]
        found["allOf"] = [item for item in found["allOf"] if item != {"nullable": True}]
        found["nullable"] = True
    if found.get("nullable") is True:
        del found["nullable"]
        return {"anyOf": [found, {"type": "null"}]}
    return found
