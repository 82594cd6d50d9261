"""What is asked of OpenAI's chat route, and what its answers hold."""

from typing import Any

import pytest

from trainer.backends.chat_route import pieces_of, reply_of, request_body
from trainer.errors import BackendError
from trainer.inference.client import Reply, Sampling
from trainer.inference.thoughts import Thought
from trainer.inference.tool_calls import Call, as_call

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "weather"}}
MESSAGES = [{"role": "user", "content": "hi"}]


def event(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta}]}


def call(index: int | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    return {"index": index, "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_request_says_each_setting_once_and_tools_where_there_are_some(limit: str) -> None:
    sampling = Sampling(max_tokens=9, temperature=0.5, top_p=0.9, seed=3)
    expected = {"model": "m", "messages": MESSAGES, limit: 9, "temperature": 0.5, "top_p": 0.9, "seed": 3}
    assert request_body("m", MESSAGES, sampling, [], limit) == expected
    assert request_body("m", MESSAGES, sampling, [TOOL], limit) == expected | {"tools": [TOOL]}


def test_tool_calls_arrive_in_pieces() -> None:
    events = [
        {"choices": []},  # Azure's word on its content filter
        {"choices": [{"index": 0, "delta": None}]},
        event(reasoning_content="Rain?", content=""),
        event(reasoning=" Or sun?"),
        event(reasoning_content=None, content="Let me see."),
        event(tool_calls=[call(1, "time", ""), call(0, "weather", '{"city"')]),
        event(tool_calls=[call(0, None, ': "Bern"}'), call(1, None, "no JSON")]),
        event(refusal="No."),
    ]
    assert list(pieces_of(events)) == [
        Thought("Rain?"), Thought(" Or sun?"), "Let me see.", "No.",
        Call("weather", {"city": "Bern"}), Call("time", {"": "no JSON"}),
    ]  # fmt: skip


MESSAGE = {"content": " It is ", "tool_calls": [call(None, "weather", '{"city": "Bern"}')]}
REPLIES = {
    "text and calls": (MESSAGE, "tool_calls", Reply(" It is ", (Call("weather", {"city": "Bern"}),), True)),
    "a thought": ({"content": "Yes.", "reasoning_content": "a"}, "stop", Reply("Yes.", (), True, thought="a")),
    "a thought in another word": ({"content": "", "reasoning": "a"}, "length", Reply("", (), False, thought="a")),
    "what is no thought": ({"content": "Yes.", "reasoning": {"effort": 1}}, "stop", Reply("Yes.", (), True)),
    "cut off": ({"content": "It", "tool_calls": None}, "length", Reply("It", (), False)),
    "refused": ({"content": None, "refusal": "No."}, "stop", Reply("No.", (), True)),
    "nothing": ({"content": None}, "stop", Reply("", (), True)),
}


@pytest.mark.parametrize("name", REPLIES)
def test_a_whole_answer_is_read(name: str) -> None:
    message, reason, expected = REPLIES[name]
    assert reply_of({"choices": [{"message": message, "finish_reason": reason}]}, "m") == expected


@pytest.mark.parametrize("choices", [None, [], [{}], [{"message": None}], [{"message": {"tool_calls": [7]}}], "no"])
def test_what_is_no_answer_is_told(choices: Any) -> None:
    with pytest.raises(BackendError, match=r"asking m: answers .*, expected an answer of OpenAI's form"):
        reply_of({"choices": choices}, "m")


@pytest.mark.parametrize("text", ["no JSON", "[1]", "7", "{" * 100_000])
def test_arguments_that_are_no_object_equal_none_that_are(text: str) -> None:
    assert as_call({"name": "f", "arguments": text}) == Call("f", {"": text})


def test_a_call_without_arguments_has_none() -> None:
    assert as_call({"name": "f", "arguments": ""}) == as_call({"name": "f"}) == Call("f", {})
