"""A line as a person is shown it: messages, calls and parts, and whatever else a line may hold."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.read.row_view import Said, as_row
from trainer.drafts.work import _row

ROW_KEYS = ("messages", "tools", "input", "preferred_output", "non_preferred_output")
KEYS = (*ROW_KEYS, "role", "content", "tool_calls", "function", "name", "arguments", "weight", "text", "x")


def nested(values: Any) -> Any:
    return st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(KEYS), values, max_size=4)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    nested,
    max_leaves=25,
)


def test_a_row_shows_what_is_trained_and_what_is_called() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]},
        {"role": "assistant", "content": "old", "weight": 0},
        {"role": "assistant", "tool_calls": [call]},
    ]
    shown = as_row(json.dumps({"messages": messages, "tools": [{"function": {"name": "add"}}]}).encode(), 7)
    assert shown.tools == ("add",)
    assert shown.said == (
        Said("user", "a[image]"),
        Said("assistant", "old"),
        Said("assistant", "", ('add({"a": 1})',), True),
    )


def test_a_preference_row_shows_its_parts() -> None:
    pair = {
        "input": {"messages": [{"role": "assistant", "content": "earlier"}, {"role": "user", "content": "q"}]},
        "preferred_output": [{"role": "assistant", "content": "good"}],
        "non_preferred_output": [{"role": "assistant", "content": "bad"}],
    }
    shown = as_row(json.dumps(pair).encode(), 1)
    assert [(said.part, said.text, said.is_trained) for said in shown.said] == [
        ("", "earlier", False),
        ("", "q", False),
        ("preferred", "good", True),
        ("non-preferred", "bad", False),
    ]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(ROW_KEYS), anything, max_size=5) | anything)
def test_any_json_can_be_shown(value: Any) -> None:
    raw = json.dumps(value).encode()
    shown = as_row(raw, 1)
    assert (shown.line, shown.raw) == (1, raw.decode())
    assert all(isinstance(text, str) for said in shown.said for text in (said.role, said.text, *said.calls))
    assert all(isinstance(message["text"], str) for message in _row(raw)["messages"])


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"[1]", b"[" * 100_000, b"9" * 5_000])
def test_any_line_can_be_shown(raw: bytes) -> None:
    assert as_row(raw, 1).line == 1


def test_what_is_wrong_with_a_row_is_shown() -> None:
    calls = {"role": "assistant", "tool_calls": [{"function": "x"}, "y", {"function": {"arguments": "{}"}}]}
    row = {"messages": [calls, {"role": "user", "contents": "a"}, 7], "tools": [{"function": "x"}, 1]}
    shown = as_row(json.dumps(row).encode(), 1)
    assert shown.tools == ("?", "?")
    assert shown.said == (
        Said("assistant", "", ('{"function": "x"}', '"y"', "?({})"), True),
        Said("user", '{"contents": "a"}'),
        Said("?", "7"),
    )
