"""`/v1/chat/completions`: bytes from the caller to the process of the model, and from there to the caller."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread
import h11
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from trainer.api.bodies import object_of
from trainer.api.errors import ApiError, answer_of, invalid
from trainer.api.keys import Caller, api_settings_of, caller_of
from trainer.api.model_process import ChatModels, Tuned, Wanted, chat_models_of
from trainer.api.settings import ApiSettings, BaseOffer
from trainer.api.tuned import TUNED, find_model
from trainer.errors import ConfigError, TrainerError
from trainer.inference.serve.departure import unless_client_leaves
from trainer.inference.serve.process import ModelProcess
from trainer.web.app import body_of
from trainer.web.problems import problem_of
from trainer.web.routes import Access, Route

if TYPE_CHECKING:
    from trainer.config.schema import ModelConfig

PATH = "/v1/chat/completions"
PASSED = (b"content-type", b"retry-after", b"x-system-prompt")
RETRY_SECONDS = b"5"
READ_BYTES = 65536


async def create(request: Request) -> "ChatAnswer":
    """An answer, whole or streamed."""
    name = object_of(request).get("model")
    if not isinstance(name, str):
        raise invalid("model", "is missing, expected the name of a model of this server")
    wanted = await anyio.to_thread.run_sync(_wanted, api_settings_of(request), caller_of(request), name)
    return ChatAnswer(chat_models_of(api_settings_of(request).root), wanted, request, body_of(request))


def _wanted(settings: ApiSettings, caller: Caller, name: str) -> Wanted:
    """Raises: ApiError, for a model that is not there, or is another's."""
    if name in settings.bases:
        return Wanted(name, name, partial(_model_of, settings.bases[name]))
    words = f"The model {name[:200]!r} does not exist or you do not have access to it."
    unknown = ApiError(404, words, "model_not_found", "model")
    if not name.startswith(TUNED):
        raise unknown
    tuned = find_model(settings.root, caller.name, name)
    if tuned.job.base not in settings.bases:
        raise unknown
    offer = settings.bases[tuned.job.base]
    return Wanted(name, tuned.job.base, partial(_model_of, offer), Tuned(tuned.run, tuned.adapter))


def _model_of(offer: BaseOffer) -> "ModelConfig":
    """The offer's base, in the form in which its jobs train it. Raises: ApiError."""
    try:
        return offer.run_config({"data.train": "rows.jsonl"}).model
    except ConfigError as error:
        words = f"the offer of {offer.base!r} on this server cannot be used: {error}"
        raise ApiError(500, words, "invalid_offer", "model", "server_error") from None


class ChatAnswer:
    """The answer of the model's process; it is given up when the client goes away."""

    def __init__(self, models: ChatModels, wanted: Wanted, request: Request, body: bytes) -> None:
        self.models, self.wanted, self.request, self.body = models, wanted, request, body
        self._has_begun = self._is_stream = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await unless_client_leaves(receive, self._answer(scope, receive, send))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer_by_a_process(send)
        except (ApiError, TrainerError) as error:
            refusal = answer_of(error if isinstance(error, ApiError) else problem_of(error))
            if refusal.status_code == 503:
                refusal.raw_headers.append((b"retry-after", RETRY_SECONDS))
            await refusal(scope, receive, send)
        except (OSError, h11.ProtocolError):
            await self._tell_of_the_end(scope, receive, send)

    async def _answer_by_a_process(self, send: Send) -> None:
        """One that was killed refuses connections a moment before its end is seen; then another one answers."""
        try:
            async with self.models.answering(self.wanted) as process:
                await self._pass_on(process, send)
        except ConnectionRefusedError:
            process.problem = process.problem or "the model's process refuses connections"
            async with self.models.answering(self.wanted) as process:
                await self._pass_on(process, send)

    async def _pass_on(self, process: ModelProcess, send: Send) -> None:
        """Raises: OSError, h11.ProtocolError, when the process ends before its answer does."""
        async with _connected(process) as (reader, writer):
            spoken = h11.Connection(h11.CLIENT)
            for part in (self._head(process), h11.Data(self.body), h11.EndOfMessage()):
                writer.write(spoken.send(part) or b"")
            while not isinstance(event := spoken.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    spoken.receive_data(await reader.read(READ_BYTES))
                elif isinstance(event, h11.Response):
                    await self._begin(event, send)
                elif isinstance(event, h11.Data):
                    await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _head(self, process: ModelProcess) -> h11.Request:
        headers = [
            ("host", f"127.0.0.1:{process.port}"),
            ("authorization", f"Bearer {process.key}"),
            ("content-type", self.request.headers.get("content-type", "")),
            ("content-length", str(len(self.body))),
            ("connection", "close"),
        ]
        return h11.Request(method="POST", target=PATH, headers=headers)

    async def _begin(self, response: h11.Response, send: Send) -> None:
        headers = [(name, value) for name, value in response.headers if name in PASSED]
        self._has_begun = True
        self._is_stream = any(value.startswith(b"text/event-stream") for _, value in headers)
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})

    async def _tell_of_the_end(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Of the process, in the middle of an answer: as an event of a stream, else by ending it short."""
        error = ApiError(500, "the model's process has ended; ask again", "server_error", type="server_error")
        refusal = answer_of(error)
        if not self._has_begun:
            await refusal(scope, receive, send)
        elif self._is_stream:
            event = b"data: " + bytes(refusal.body) + b"\n\n"
            await send({"type": "http.response.body", "body": event, "more_body": False})


@asynccontextmanager
async def _connected(process: ModelProcess) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that is cut when the block is left, which stops the model."""
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    try:
        yield reader, writer
    finally:
        writer.close()


ROUTES = (Route(PATH, create, Access.API, methods=("POST",)),)
