"""The HTTP side: routes, who may call them, and every error in OpenAI's form."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainer.inference.serve.departure import unless_client_leaves
from trainer.inference.serve.guards import check_host, check_key
from trainer.inference.serve.limits import Limits, read_body
from trainer.inference.serve.models import Models
from trainer.inference.serve.refusals import Refusal, failed, not_ready
from trainer.inference.serve.requests import ChatRequest, parse_request
from trainer.inference.serve.service import Service
from trainer.inference.serve.trained_prompt import HEADER

ALWAYS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
OPEN_PATHS = ("/health",)  # without a key


@dataclass
class Server:
    """State that the app answers from; `models` is None until they are loaded."""

    name: str
    key: str
    hosts: frozenset[str]
    limits: Limits
    created: int
    models: Models | None = None
    problem: str | None = None  # why there will be no answers any more

    @property
    def names(self) -> list[str]:
        """Names of the models, as far as they are known."""
        return [self.name] if self.models is None else self.models.names

    def ready(self) -> Models:
        """Raises: Refusal, while the model is being loaded and after it has failed."""
        if self.models is None:
            raise not_ready(self.problem or "the model is being loaded")
        if self.problem or self.models.problem:
            raise failed(f"the model has stopped: {self.problem or self.models.problem}")
        return self.models


def make_app(server: Server, lifespan: Callable[[Starlette], Any] | None = None) -> ASGIApp:
    """The ASGI application."""
    routes = [
        Route("/health", health),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/v1/chat/completions", ChatCompletions),
    ]
    handlers: dict[Any, Any] = {HTTPException: _http_error, Refusal: _refused, Exception: _broken}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan or _nothing)
    app.state.server = server
    return Guard(app, server)


class Guard:
    """Before any route: the Host header and the key. After it: headers that every answer has."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self.app, self.server = app, server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(8)}".encode()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *ALWAYS, (b"x-request-id", request_id)]
            await send(message)

        request = Request(scope)
        try:
            check_host(request.headers.get("host"), self.server.hosts)
            if scope["path"] not in OPEN_PATHS:
                check_key(request.headers.get("authorization"), self.server.key)
        except Refusal as refusal:
            await _response(refusal)(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)


async def health(request: Request) -> Response:
    """200 as soon as a request would be answered."""
    server: Server = request.app.state.server
    server.ready()
    return JSONResponse({"status": "ready", "model": server.name})


async def models(request: Request) -> Response:
    """The tuned models, and once they are loaded their base."""
    server: Server = request.app.state.server
    return JSONResponse({"object": "list", "data": [_model(server, name) for name in server.names]})


async def model(request: Request) -> Response:
    """A model by its name."""
    server: Server = request.app.state.server
    name = request.path_params["name"]
    if name not in server.names:
        expected = " or ".join(map(repr, server.names))
        raise Refusal(404, f"there is no such model, expected {expected}", "model_not_found", "model")
    return JSONResponse(_model(server, name))


class ChatCompletions:
    """An answer, whole or streamed; it is given up when the client goes away."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.request, self.receive, self.send = Request(scope, receive), receive, send

    def __await__(self) -> Any:
        return self._run().__await__()

    async def _run(self) -> None:
        if self.request.method != "POST":
            raise HTTPException(405, headers={"allow": "POST"})
        server: Server = self.request.app.state.server
        models = server.ready()
        if self.request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "the content type is not application/json, expected that", "unsupported_media_type")
        models.places.check()  # before the body is read
        announced = self.request.headers.get("content-length")
        try:
            body = await read_body(self.request.stream(), announced, server.limits)
        except ClientDisconnect:
            return
        chat = parse_request(body)
        await unless_client_leaves(self.receive, self._answer_by_name(models, chat))

    async def _answer_by_name(self, models: Models, chat: ChatRequest) -> None:
        async with models.using(chat.model) as service:
            await self._answer(service, chat)

    async def _answer(self, service: Service, chat: ChatRequest) -> None:
        judgment = service.trained.judge(chat.rendered_messages())
        judged = [] if judgment is None else [(HEADER, judgment.encode())]
        if not chat.stream:
            response = JSONResponse(await service.answer(chat))
            response.raw_headers += judged
            await response(self.request.scope, self.receive, self.send)
            return
        async with aclosing(service.events(chat)) as events:
            first = await anext(events)  # what is refused, is refused with a status
            headers = [(b"content-type", b"text/event-stream; charset=utf-8"), *judged]
            await self.send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._send_part(first)
            async for event in events:
                await self._send_part(event)
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_part(self, part: bytes) -> None:
        await self.send({"type": "http.response.body", "body": part, "more_body": True})


def _model(server: Server, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": server.created, "owned_by": "azure-llm-trainer"}


def _response(refusal: Refusal) -> Response:
    return JSONResponse(refusal.body, refusal.status, refusal.headers)


async def _refused(request: Request, refusal: Refusal) -> Response:
    return _response(refusal)


async def _http_error(request: Request, error: HTTPException) -> Response:
    """Unknown paths and methods."""
    refusal = Refusal(error.status_code, f"{request.method} {request.url.path[:80]}: {error.detail.lower()}")
    return JSONResponse(refusal.body, refusal.status, error.headers)


async def _broken(request: Request, error: Exception) -> Response:
    """A mistake of ours: the client gets no more than that."""
    return _response(failed("the server made a mistake"))


@asynccontextmanager
async def _nothing(app: Starlette) -> AsyncIterator[None]:
    yield
