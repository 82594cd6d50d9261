"""Rows of Glaive and xLAM, their functions and calls among them."""

import json
from collections import Counter

import pytest

from trainer.data.layouts.messages import NotConvertible
from trainer.data.layouts.shapes import convert_row, repairs

FUNCTION = {"name": "rate", "description": "A rate.", "parameters": {"type": "object", "properties": {}}}
GLAIVE = {
    "system": "SYSTEM: You are helpful and may use these functions -\n" + json.dumps(FUNCTION, indent=4) + "\n",
    "chat": "USER: What's the rate?\n\n\nASSISTANT: I look. <functioncall> "
    '{"name": "rate", "arguments": \'{"of": "Bob\\\'s dollar"}\'} <|endoftext|>\n\n\n'
    'FUNCTION RESPONSE: {"rate": 0.9}\n\n\nASSISTANT: It is 0.9. <|endoftext|>\n\n\n'
    "USER: Thanks\n\n\nASSISTANT: You are welcome. <|endoftext|>",
}


def converted(row):
    dropped = Counter()
    shape, (made,) = convert_row(row, None, dropped)
    assert not dropped
    return shape, made


def test_a_row_of_glaive():
    shape, made = converted(GLAIVE)
    assert shape == "Glaive"
    call = {"id": "call_2_0", "type": "function", "function": {"name": "rate", "arguments": '{"of": "Bob\'s dollar"}'}}
    assert made == {
        "messages": [
            {"role": "system", "content": "You are helpful and may use these functions"},
            {"role": "user", "content": "What's the rate?"},
            {"role": "assistant", "content": "I look.", "tool_calls": [call]},
            {"role": "tool", "content": '{"rate": 0.9}', "tool_call_id": "call_2_0"},
            {"role": "assistant", "content": "It is 0.9."},
            {"role": "user", "content": "Thanks"},
            {"role": "assistant", "content": "You are welcome."},
        ],
        "tools": [{"type": "function", "function": FUNCTION}],
    }
    assert repairs(GLAIVE, "local")


def test_a_row_of_glaive_without_functions():
    system = "SYSTEM: You are helpful, with no access to external functions."
    _, made = converted({"system": system, "chat": "USER: Hi\n\n\nASSISTANT: Hello {you} <|endoftext|>\n\n\n"})
    assert made == {
        "messages": [
            {"role": "system", "content": system.removeprefix("SYSTEM: ")},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello {you}"},
        ]
    }


@pytest.mark.parametrize("call", ["rate(1)", '{"name": "rate", "arguments": \'{"of"\'}'])
def test_a_call_of_glaive_that_cannot_be_read_is_refused(call):
    with pytest.raises(NotConvertible, match="expected JSON with name and arguments"):
        convert_row(
            {"system": "", "chat": f"USER: Hi\n\n\nASSISTANT: <functioncall> {call} <|endoftext|>"}, None, Counter()
        )


def test_a_row_of_xlam():
    parameters = {
        "city": {"description": "Where.", "type": "str"},
        "days": {"description": "How many.", "type": "int, optional", "default": 3},
        "hours": {"type": "List[int], optional"},
        "pair": {"type": "Tuple[int, int]"},
        "either": {"type": "Union[int, str]", "default": ""},
    }
    tools = [{"name": "weather", "description": "Tells it.", "parameters": parameters}]
    answers = [{"name": "weather", "arguments": {"city": city}} for city in ("Oslo", "Rome")]
    row = {"id": 7, "query": "Weather?", "tools": json.dumps(tools), "answers": json.dumps(answers)}
    shape, made = converted(row)
    assert shape == "xLAM"
    assert made == {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "tool_calls": [
                {"id": f"call_1_{i}", "type": "function",
                 "function": {"name": "weather", "arguments": json.dumps({"city": city})}}
                for i, city in enumerate(("Oslo", "Rome"))
            ]},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where."},
                "days": {"type": "integer", "description": "How many.", "default": 3},
                "hours": {"type": "array", "items": {"type": "integer"}},
                "pair": {"type": "array", "items": {}},
                "either": {},
            },
            "required": ["city", "pair"],
        }}}],
    }  # fmt: skip
    assert repairs(row, "local")


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"answers": "[]"}, "answers is an empty list"), ({"answers": "f(1)"}, "answers is 'f"),
     ({"tools": [7]}, "tools holds 7"), ({"query": 7}, "query is 7"),
     ({"answers": [{"name": "f"}]}, "expected name and arguments")],
)  # fmt: skip
def test_a_row_of_xlam_that_cannot_be_read_is_refused(change, reason):
    row = {"query": "Hi", "tools": "[]", "answers": '[{"name": "f", "arguments": {}}]'} | change
    with pytest.raises(NotConvertible, match=reason):
        convert_row(row, None, Counter())
