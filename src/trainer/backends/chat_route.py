"""OpenAI's chat route, whoever speaks it and however it is reached: what is asked, and what an answer holds."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from trainer.backends.http import failure_of, is_failure, refusal
from trainer.errors import BackendError, quoted
from trainer.inference.client import ChatMessage, Piece, Reply, Sampling, Tool
from trainer.inference.thoughts import Thought
from trainer.inference.tool_calls import as_call


def request_body(
    model: str, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool], limit: str = "max_tokens"
) -> dict[str, Any]:
    """Body of a chat request; `limit` is the service's word for the longest answer."""
    body: dict[str, Any] = {"model": model, "messages": [dict(message) for message in messages]}
    body |= {limit: sampling.max_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p}
    body["seed"] = sampling.seed
    return body | ({"tools": [dict(tool) for tool in tools]} if tools else {})


def reply_of(answer: Mapping[str, Any], name: str) -> Reply:
    """Reply within a whole answer of `name`. Raises: BackendError, when it holds none."""
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        calls = tuple(as_call(call.get("function") or {}) for call in message.get("tool_calls") or ())
        text = str(message.get("content") or message.get("refusal") or "")
        thought = _thought(message)
    except (KeyError, IndexError, TypeError, AttributeError):
        shown = quoted(str(answer), 200)
        raise BackendError(f"asking {name}: answers {shown}, expected an answer of OpenAI's form") from None
    return Reply(text, calls, choice.get("finish_reason") != "length", thought=thought)


def _thought(message: Mapping[str, Any]) -> str:
    """The thought of a message or a delta: each service has its own word, and OpenAI's tell none."""
    found = message.get("reasoning_content") or message.get("reasoning")
    return found if isinstance(found, str) else ""


def pieces_of(events: Iterable[Mapping[str, Any]]) -> Iterator[Piece]:
    """Thought and text as they come; the calls at the end, when their arguments are whole."""
    calls: dict[int, dict[str, str]] = {}
    for event in events:
        for choice in (event.get("choices") or [])[:1]:  # Azure's first event, on its content filter, has none
            delta = choice.get("delta") or {}
            if thought := _thought(delta):
                yield Thought(thought)
            if text := delta.get("content") or delta.get("refusal"):
                yield str(text)
            for part in delta.get("tool_calls") or ():
                known, function = calls.setdefault(int(part.get("index") or 0), {}), part.get("function") or {}
                for field in ("name", "arguments"):
                    known[field] = known.get(field, "") + (function.get(field) or "")
    for _, function in sorted(calls.items()):
        yield as_call(function)


def events_of(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Server-sent events, however the network cuts them. Raises: BackendError, for an error or an early end."""
    held = b""
    for chunk in chunks:
        *lines, held = (held + chunk).split(b"\n")
        for line in lines:
            data = line.strip().removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                return
            if data:
                event = object_of(data.decode())
                if "error" in event:
                    raise BackendError(f"the endpoint stopped answering: {event['error']}")
                yield event
    raise BackendError("the endpoint stopped answering before its end; ask again")


def object_of(text: str) -> dict[str, Any]:
    """The JSON object of an answer. Raises: ValueError; BackendError, when it is something else."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise BackendError(f"the endpoint answered with {type(found).__name__}, expected an object of OpenAI's form")
    return found


@contextmanager
def failures_in_words(name: str) -> Iterator[None]:
    """The failure of an answer that comes in pieces, in words. Raises: BackendError."""
    try:
        yield
    except Exception as error:
        if not is_failure(error):
            raise
        raise refusal(failure_of(error), f"asking {name}") from error
