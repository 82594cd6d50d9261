"""What a request may say, and what is said to one that may not."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from trainer.errors import ConfigError
from trainer.inference.client import Sampling
from trainer.inference.serve.guards import allowed_hosts, api_key, check_host, check_key
from trainer.inference.serve.limits import Limits, Slots, read_body
from trainer.inference.serve.listening import bind
from trainer.inference.serve.refusals import Refusal
from trainer.inference.serve.requests import ChatRequest, parse_request

USER = {"role": "user", "content": "hi"}
LIMITS = Limits(max_tokens=100)
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def parsed(**fields: Any) -> ChatRequest:
    return parse_request(json.dumps({"model": "m", "messages": [USER]} | fields).encode())


def refusal(body: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse_request(body)
    return caught.value


WRONG: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "no messages": ({"messages": []}, "messages", "messages: List should have at least 1 item"),
    "a message without content": ({"messages": [{"role": "user"}]}, "messages[0]", "content is missing"),
    "an unknown role": (
        {"messages": [{"role": "human", "content": "x"}]},
        "messages[0].role",
        "messages[0].role: Input should be 'system', 'developer', 'user', 'assistant' or 'tool'",
    ),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content[0].type",
        "Input should be 'text'",
    ),
    "a tool message without an id": ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", "tool_call_id"),
    "a call by a user": ({"messages": [USER | {"tool_calls": [CALL]}]}, "messages[0]", "tool_calls stand on a user"),
    "a call with broken arguments": (
        {"messages": [{"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": "{"}}]}]},
        "messages[0].tool_calls[0]",
        "arguments are no JSON object",
    ),
    "a tool without a name": ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "required"),
    "another tool": ({"tools": [{"type": "web_search"}]}, "tools[0].type", "Input should be 'function'"),
    "a tool that must be called": ({"tool_choice": "required"}, "tool_choice", "Input should be 'auto' or 'none'"),
    "several answers": ({"n": 2}, "n", "n: Input should be 1"),
    "no answers": ({"n": 0}, "n", "n: Input should be 1"),
    "a hot temperature": ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
    "a temperature in words": ({"temperature": "1"}, "temperature", "should be a valid number"),
    "a top_p above 1": ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
    "no tokens": ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    "two limits": ({"max_tokens": 1, "max_completion_tokens": 2}, None, "max_tokens and max_completion_tokens differ"),
    "a seed that is yes": ({"seed": True}, "seed", "should be a valid integer"),
    "five stop strings": ({"stop": list("abcde")}, None, "stop has 5 strings, expected at most 4"),
    "an empty stop string": ({"stop": ""}, "stop", "at least 1 character"),
    "log probabilities": ({"logprobs": True}, "logprobs", "Input should be False"),
    "a penalty": ({"presence_penalty": 0.5}, "presence_penalty", "less than or equal to 0"),
    "a JSON answer": ({"response_format": {"type": "json_object"}}, "response_format.type", "Input should be 'text'"),
    "an unknown field": ({"chat_template": "x"}, "chat_template", "chat_template is not supported by this server"),
    "stream options without a stream": ({"stream_options": {"include_usage": True}}, None, "given without stream"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str) -> None:
    fields, param, message = WRONG[name]
    found = refusal(json.dumps({"model": "m", "messages": [USER]} | fields).encode())
    assert (found.status, found.param) == (400, param)
    assert message in found.message
    assert found.body["error"] == {
        "message": found.message,
        "type": "invalid_request_error",
        "param": param,
        "code": found.code,
    }


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000])
def test_what_is_no_json_is_told(body: bytes) -> None:
    assert refusal(body).code == "invalid_json"


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null"])
def test_what_is_no_object_is_told(body: bytes) -> None:
    assert refusal(body).message.startswith("the body: ")


def test_fields_that_change_nothing_are_taken() -> None:
    parsed(n=1, logprobs=False, presence_penalty=0, frequency_penalty=0.0, store=False, user="u", metadata={"a": "b"})
    parsed(response_format={"type": "text"}, tool_choice="auto", parallel_tool_calls=True, stream=False, stop=None)


def test_an_answer_can_be_sent_back_as_the_client_got_it() -> None:
    answer = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": [CALL],
    }
    result = {"role": "tool", "tool_call_id": "c1", "content": "2"}
    messages = parsed(messages=[USER, answer, result]).rendered_messages()
    assert messages[1]["tool_calls"] == [CALL]
    assert messages[2]["tool_call_id"] == "c1"


def test_text_parts_are_joined_as_in_training() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert parsed(messages=[{"role": "user", "content": parts}]).rendered_messages()[0]["content"] == "ab"


def test_tools_reach_the_template_key_for_key() -> None:
    tool = {
        "function": {"description": "d", "strict": True, "name": "f", "parameters": {"z": 1, "a": 2}},
        "type": "function",
    }
    (rendered,) = parsed(tools=[tool]).rendered_tools() or []
    assert json.dumps(rendered) == json.dumps(tool)
    assert parsed(tools=[tool], tool_choice="none").rendered_tools() is None


def test_sampling_follows_the_request() -> None:
    asked = parsed(temperature=0.5, top_p=0.9, seed=7, max_completion_tokens=5)
    assert asked.sampling(10, 1000, LIMITS) == Sampling(max_tokens=5, temperature=0.5, top_p=0.9, seed=7)


def test_without_settings_it_samples_as_the_service_does_with_another_seed_each_time() -> None:
    first, second = (parsed().sampling(10, 1000, LIMITS) for _ in range(2))
    assert (first.max_tokens, first.temperature, first.top_p) == (100, 1.0, 1.0)
    assert first.seed != second.seed


@pytest.mark.parametrize(("prompt", "room"), [(950, 50), (999, 1)])
def test_an_answer_ends_where_the_model_cannot_read_further(prompt: int, room: int) -> None:
    assert parsed(max_tokens=100).sampling(prompt, 1000, LIMITS).max_tokens == room


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(Refusal, match="the messages have 1,000 tokens, expected fewer than 1,000") as caught:
        parsed().sampling(1000, 1000, LIMITS)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(Refusal, match="max_tokens is 101, expected at most 100 on this server"):
        parsed(max_tokens=101).sampling(1, 1000, LIMITS)


def test_places_are_taken_and_given_back() -> None:
    places = Slots(Limits(max_requests=1))
    with places.one():
        with pytest.raises(Refusal) as caught, places.one():
            pass
        assert (caught.value.status, caught.value.headers) == (429, {"retry-after": "1"})
    with pytest.raises(ValueError, match="x"), places.one():
        raise ValueError("x")
    assert places.taken == 0


async def chunks(*parts: bytes, seconds: float = 0) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(seconds)
        yield part


@pytest.mark.parametrize(
    ("announced", "parts", "status"),
    [("11", [b""], 413), (None, [b"12345", b"123456"], 413), ("junk", [b"1" * 11], 413)],
)
def test_a_large_body_is_refused_before_it_is_read(announced: str | None, parts: list[bytes], status: int) -> None:
    with pytest.raises(Refusal) as caught:
        asyncio.run(read_body(chunks(*parts), announced, Limits(max_body_bytes=10)))
    assert caught.value.status == status


def test_a_body_of_the_largest_size_is_read() -> None:
    assert asyncio.run(read_body(chunks(b"12345", b"12345"), "10", Limits(max_body_bytes=10))) == b"1234512345"


def test_a_slow_body_is_given_up() -> None:
    with pytest.raises(Refusal, match=r"did not come within 0\.01 seconds") as caught:
        asyncio.run(read_body(chunks(b"1", seconds=5), None, Limits(max_body_seconds=0.01)))
    assert caught.value.status == 408


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic right-key", "right-key"])
def test_only_the_right_key_is_let_in(header: str | None) -> None:
    with pytest.raises(Refusal) as caught:
        check_key(header, "right-key")
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


def test_the_right_key_is_let_in() -> None:
    check_key("Bearer right-key", "right-key")
    check_key("bearer right-key", "right-key")


@pytest.mark.parametrize("key", ["", "short", "with a space in it", "not-äscii-at-all", "line\nbreak"])
def test_a_key_that_no_header_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("TRAINER_API_KEY", key)
    with pytest.raises(ConfigError, match="TRAINER_API_KEY: is unfit as a key, expected at least 8 visible"):
        api_key()


def test_the_key_comes_from_the_environment_or_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_API_KEY", "from-the-environment")
    assert api_key() == ("from-the-environment", False)
    monkeypatch.delenv("TRAINER_API_KEY")
    (first, is_new), (second, _) = api_key(), api_key()
    assert is_new
    assert len(first) >= 32
    assert first != second


OWN = allowed_hosts("127.0.0.1", 8000, ["box.example"])


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "[::1]:8000", "box.example:8000"]
)
def test_own_names_are_answered(host: str) -> None:
    check_host(host, OWN)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "127.0.0.1",
        "localhost",
        "localhost:8001",
        "evil.example:8000",
        "localhost.evil.example:8000",
        "127.0.0.1.evil.example:8000",
        "localhost:8000@evil.example",
        "localhost:8000 ",
        "evil.example, localhost:8000",
        "127.1:8000",
        "0.0.0.0:8000",
        "2130706433:8000",
    ],
)
def test_other_names_are_not(host: str | None) -> None:
    with pytest.raises(Refusal) as caught:
        check_host(host, OWN)
    assert caught.value.status == 421


def test_every_address_needs_a_name() -> None:
    with pytest.raises(ConfigError, match=r"--host: '0.0.0.0' is every address of this machine, expected --allowed"):
        allowed_hosts("0.0.0.0", 8000, [])
    assert allowed_hosts("0.0.0.0", 8000, ["box.example"]) == {"box.example:8000"}


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_here_is_not_called_a_port_in_use(host: str) -> None:
    with pytest.raises(ConfigError, match=f"--host: '{host}' is no address of this machine, expected"):
        bind(host, 0)
