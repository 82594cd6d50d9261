"""A deployed model with OpenAI's chat route, as a ChatClient: whole answers or a stream, and tool calls in either."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.backends.chat_route import events_of, failures_in_words, object_of, pieces_of, reply_of, request_body
from trainer.backends.http import patiently, timeout_seconds
from trainer.inference.client import ChatMessage, Piece, Sampling, Tool

if TYPE_CHECKING:
    from azure.core import PipelineClient

    from trainer.inference.replies import ReplyReader

ANSWER_SECONDS = 190.0  # Azure ML gives an answer 180


@dataclass(frozen=True, slots=True)
class Address:
    """Address and name of a model that answers. Each call asks for `headers`: keys are stored nowhere."""

    url: str
    model: str
    headers: Callable[[], Mapping[str, str]]
    streams: bool


class ChatEndpoint:
    """Answers from a deployed model.

    `reader` reads thoughts and tool calls in the model's own text, for a server that does not.
    """

    def __init__(self, name: str, address: Address, reader: "Callable[[], ReplyReader] | None" = None) -> None:
        self.name, self.address, self.reader = name, address, reader

    def stream(
        self, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool] = ()
    ) -> Iterator[Piece]:
        """The answer in pieces, or whole where the endpoint does not stream. Raises: BackendError."""
        body = request_body(self.address.model, messages, sampling, tools)
        if self.reader is None:
            yield from self._pieces(body)
            return
        from trainer.inference.replies import split_stream

        reader = self.reader()
        text = (piece for piece in self._pieces(body | as_written(tools)) if isinstance(piece, str))
        yield from split_stream(text, reader, reader.prompt(messages, tools), tools or None)

    def ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The whole answer to a request in OpenAI's form. Raises: BackendError."""
        return patiently(lambda: self.ask_once(body)[0], f"asking {self.name}")

    def ask_once(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, str]]:
        """The whole answer and its headers; a failure is raised as the client raises it. Raises: BackendError too."""
        with self._opened({"model": self.address.model, **body}, stream=False) as response:
            _refuse(response)
            return object_of(response.text()), dict(response.headers)

    def _pieces(self, body: dict[str, Any]) -> Iterator[Piece]:
        if not self.address.streams:
            reply = reply_of(self.ask(body), self.name)
            yield from ([reply.text] if reply.text else [])
            yield from reply.calls
            return
        with failures_in_words(self.name), self._opened(body | {"stream": True}, stream=True) as response:
            _refuse(response)
            yield from pieces_of(events_of(response.iter_bytes()))

    @contextmanager
    def _opened(self, body: Mapping[str, Any], stream: bool) -> Iterator[Any]:
        from azure.core.rest import HttpRequest

        request = HttpRequest("POST", self.address.url, json=dict(body), headers=dict(self.address.headers()))
        timeouts = {"connection_timeout": timeout_seconds(), "read_timeout": ANSWER_SECONDS}
        with _client() as client, client.send_request(request, stream=stream, **timeouts) as response:
            yield response


def as_written(tools: Sequence[Tool] | None) -> dict[str, Any]:
    """Settings with which vLLM answers with all that the model wrote, after it was shown its tools."""
    return {"skip_special_tokens": False} | ({"tool_choice": "none"} if tools else {})


def _client() -> "PipelineClient[Any, Any]":
    """Without policies: no retry, no redirect that would carry the key elsewhere, no log that would hold it."""
    from azure.core import PipelineClient

    return PipelineClient("", policies=[])


def _refuse(response: Any) -> None:
    """Raises: HttpResponseError, for anything but an answer; a redirect is none, as the key would go with it."""
    from azure.core.exceptions import HttpResponseError

    if response.status_code >= 300:
        response.read()
        raise HttpResponseError(response=response)
