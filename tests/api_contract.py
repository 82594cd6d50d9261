"""Every request and answer of a server of the API, held against the OpenAPI document and the SDK's models.

What was answered must have been asked as the document has it, and a refusal must have the document's form of an error.
"""

import json
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.loopback import Request, Response
from tests.openai_service.contract import Contract, Finding, document

MOST_BYTES = 4 * 2**20  # of a body that is looked at; larger ones are files
ERROR_EVENT = b'data: {"error":'
ERROR = {"$ref": "#/components/schemas/ErrorResponse"}
# Where the document is known to say less than the service's own documentation: operation and place begin so.
KNOWN = (
    ("GET /files/{file_id}/content", "answer"),  # the document calls a file's content a JSON string
    ("POST /fine_tuning/jobs", "answer status"),  # it has pausing and resuming, and no state paused
    ("GET /fine_tuning/jobs", "answer data.*.status"),
    ("GET /fine_tuning/jobs", "answer status"),
    ("POST /fine_tuning/jobs", "sdk status"),
    ("GET /fine_tuning/jobs", "sdk status"),
    ("", "request ?api-version"),  # Azure's clients send it
)


class Watched:
    """The app, and what the contract finds in its traffic."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.contract, self.lock = app, Contract(document()), threading.Lock()
        self.refusals = list[Finding]()

    @property
    def findings(self) -> Sequence[Finding]:
        unknown = [
            found for found in self.contract.findings
            if not any(found.operation.startswith(name) and found.place.startswith(place) for name, place in KNOWN)
        ]  # fmt: skip
        return sorted({*unknown, *self.refusals})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A name with a slash is one piece of the address, which the contract would look for decoded.
        path = scope["raw_path"].decode("latin-1").replace("%2F", "~")
        sent, answered, status, kind = bytearray(), bytearray(), 0, ""

        async def listen() -> Message:
            message = await receive()
            if len(sent) <= MOST_BYTES:
                sent.extend(message.get("body", b""))
            return message

        async def tell(message: Message) -> None:
            nonlocal status, kind
            if message["type"] == "http.response.start":
                status = message["status"]
                kind = dict(message["headers"]).get(b"content-type", b"").decode().partition(";")[0]
            elif len(answered) <= MOST_BYTES:
                answered.extend(message.get("body", b""))
            await send(message)

        await self.app(scope, listen, tell)
        if status and len(sent) <= MOST_BYTES and len(answered) <= MOST_BYTES:
            with self.lock:
                self._look(path, _request(scope, path, bytes(sent)), _response(status, kind, bytes(answered)))

    def _look(self, path: str, request: Request, response: Response) -> None:
        refusals = [response.body]
        if response.status < 400:
            refusals = []
            streamed = response.headers["Content-Type"] == "text/event-stream"
            if streamed and path.endswith("/events"):  # the document has no stream of a job's events
                return
            if streamed:  # whose end may be an error, as the SDK knows it
                events = response.body.split(b"\n\n")
                refusals = [json.loads(event[6:]) for event in events if event.startswith(ERROR_EVENT)]
                response.body = b"\n\n".join(event for event in events if not event.startswith(ERROR_EVENT))
            self.contract(path.removeprefix("/openai").removeprefix("/v1"), request, response)
        if self.contract.spec is not None:
            for refusal in refusals:
                problems = self.contract._problems("refusal", ERROR, refusal)
                self.refusals += [Finding(f"{request.method} {path}", *problem) for problem in problems]


def _request(scope: Scope, path: str, body: bytes) -> Request:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    return Request(scope["method"], path, query, headers, body)


def _response(status: int, kind: str, body: bytes) -> Response:
    value: Any = json.loads(body) if kind == "application/json" else body
    return Response(status, value, {"Content-Type": kind})
