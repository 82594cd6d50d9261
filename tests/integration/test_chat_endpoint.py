"""A deployed model as a chat's model: streamed and whole, with calls, through every way a network cuts text."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.loopback import Fault, Loopback, Request, Response, status
from trainer.backends.chat_endpoint import Address, ChatEndpoint
from trainer.backends.chat_route import events_of, pieces_of
from trainer.errors import BackendError
from trainer.inference.client import Sampling
from trainer.inference.thoughts import Thought
from trainer.inference.tool_calls import Call

MESSAGES = [{"role": "user", "content": "Add 1 and 2."}]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]


def event(**delta: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}, ensure_ascii=False).encode() + b"\n\n"


STREAM = b"".join(
    [
        event(role="assistant", content=""),
        event(content="Grüße, "),
        b": a comment\n\n",
        event(content="one"),
        event(tool_calls=[{"index": 0, "id": "a", "function": {"name": "add", "arguments": '{"a": '}}]),
        event(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
        event(tool_calls=[{"index": 1, "id": "b", "function": {"name": "add", "arguments": "no JSON"}}]),
        b'data: {"choices": [], "usage": {"prompt_tokens": 1}}\n\n',
        b"data: [DONE]\n\n",
    ]
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_a_stream_is_read_however_it_is_cut(size: int) -> None:
    chunks = (STREAM[at : at + size] for at in range(0, len(STREAM), size))
    assert list(pieces_of(events_of(chunks))) == ["Grüße, ", "one", Call("add", {"a": 1}), Call("add", {"": "no JSON"})]


def test_a_stream_that_ends_early_or_breaks_is_no_answer() -> None:
    with pytest.raises(BackendError, match="stopped answering before its end"):
        list(events_of([STREAM[: STREAM.index(b"data: [DONE]")]]))
    with pytest.raises(BackendError, match="stopped answering: out of memory"):
        list(events_of([b'data: {"error": "out of memory"}\n\n']))


class Model:
    """Answers what it is told to, and keeps what it was asked."""

    def __init__(self, message: dict[str, Any], stream: bytes = STREAM) -> None:
        self.message, self.stream, self.asked = message, stream, list[Request]()

    def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        if request.json().get("stream"):
            return Response(200, self.stream, {"Content-Type": "text/event-stream"})
        return Response(200, {"choices": [{"message": self.message}], "usage": {"prompt_tokens": 4}})


@contextmanager
def endpoint(
    model: Model, streams: bool, reader: Callable[[], Any] | None = None
) -> Iterator[tuple[ChatEndpoint, Loopback]]:
    keys = iter("abcdefgh")
    with Loopback(model) as service:
        address = Address(f"{service.url}/score", "tuned", lambda: {"Authorization": f"Bearer {next(keys)}"}, streams)
        yield ChatEndpoint("support/blue", address, reader), service


def test_a_whole_answer_is_text_and_calls_and_the_key_is_asked_for_each_time() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    model = Model({"role": "assistant", "content": "Adding.", "tool_calls": [call]})
    with endpoint(model, streams=False) as (client, _):
        for _ in range(2):
            pieces = list(client.stream(MESSAGES, Sampling(max_tokens=9, temperature=0.5, seed=3), TOOLS))
            assert pieces == ["Adding.", Call("add", {"a": 1})]
    body = model.asked[0].json()
    assert body == {"model": "tuned", "messages": MESSAGES, "tools": TOOLS, "max_tokens": 9, "temperature": 0.5,
                    "top_p": 1.0, "seed": 3}  # fmt: skip
    assert [request.headers["authorization"] for request in model.asked] == ["Bearer a", "Bearer b"]


def test_a_server_that_reads_no_calls_and_no_thoughts_is_read_in_the_form_that_was_trained() -> None:
    from trainer.data.render.rendering import Renderer
    from trainer.inference.replies import ReplyReader
    from trainer.inference.trained import stored_tokenizer
    from trainer.model.tiny import tiny_base

    reader = ReplyReader(Renderer(stored_tokenizer(tiny_base())))
    assert reader.form is not None
    brackets = reader.form.brackets
    written = f'{brackets.opening}{{"name": "add", "arguments": {{"a": 1}}}}{brackets.tail}{brackets.closing}'
    model = Model({}, event(content=written[:9]) + event(content=written[9:]) + b"data: [DONE]\n\n")
    with endpoint(model, streams=True, reader=lambda: reader) as (client, _):
        assert list(client.stream(MESSAGES, Sampling(), TOOLS)) == [Call("add", {"a": 1})]
        model.stream = event(content="<think>On") + event(content="e.</think>\n\nTwo.") + b"data: [DONE]\n\n"
        assert list(client.stream(MESSAGES, Sampling())) == [Thought("On"), Thought("e."), "Two."]
    with_tools, without = (request.json() for request in model.asked)
    assert (with_tools["tool_choice"], with_tools["skip_special_tokens"], with_tools["tools"]) == ("none", False, TOOLS)
    assert (without["skip_special_tokens"], "tool_choice" in without) == (False, False)


@pytest.mark.parametrize("streams", [True, False])
def test_a_refusal_is_told_in_the_services_words(streams: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_PATIENCE_SECONDS", "1")
    with endpoint(Model({"content": "x"}), streams) as (client, service):
        service.faults.append(Fault("401", answer=status(401)))
        with pytest.raises(BackendError, match="asking support/blue: the service answered 401"):
            list(client.stream(MESSAGES, Sampling()))


def test_a_busy_endpoint_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_PATIENCE_SECONDS", "5")
    with endpoint(Model({"content": "here"}), streams=False) as (client, service):
        service.faults.append(Fault("429", answer=status(429, Retry_After="0"), times=2))
        assert list(client.stream(MESSAGES, Sampling())) == ["here"]


def test_the_key_does_not_follow_a_redirect() -> None:
    with (
        Loopback(Model({"content": "elsewhere"})) as other,
        endpoint(Model({"content": "x"}), False) as (client, service),
    ):
        moved = Response(307, None, {"Location": f"{other.url}/score"})
        service.faults.append(Fault("redirect", answer=lambda own: moved))
        with pytest.raises(BackendError):
            list(client.stream(MESSAGES, Sampling()))
        assert other.requests == []
