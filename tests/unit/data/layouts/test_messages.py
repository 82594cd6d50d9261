"""Roles, calls and tools of other layouts in the words of the chat format."""

from collections import Counter

import pytest

from trainer.data.layouts.messages import NotConvertible, chat_messages, chat_tools

CALL = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}


def said(*messages):
    return chat_messages(list(messages), Counter())


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("human", "user"), ("gpt", "assistant"), ("bot", "assistant"), ("observation", "tool"), ("system", "system"),
     ("user", "user"), ("developer", "developer")],
)  # fmt: skip
def test_roles_have_other_names(theirs, ours):
    assert said({"from": theirs, "value": "Hi"}) == [{"role": ours, "content": "Hi"}]


CALLS = {
    "a turn of its own": {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
    "tags in the text": {"from": "gpt", "value": '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'},
    "tags with parameters": {
        "role": "assistant", "content": '<tool_call>{"name": "f", "parameters": {"x": 1}}</tool_call>'},
    "arguments as an object": {"role": "assistant", "tool_calls": [
        {"function": {"name": "f", "arguments": {"x": 1}}, "id": None}], "content": None},
    "arguments as text": {"role": "assistant", "tool_calls": [CALL]},
}  # fmt: skip


@pytest.mark.parametrize("message", CALLS.values(), ids=CALLS)
def test_every_way_to_write_a_call(message):
    assert said(message) == [{"role": "assistant", "tool_calls": [{"id": "call_0_0", **CALL}]}]


def test_answers_without_an_id_answer_the_calls_in_their_order():
    calls = {"role": "assistant", "content": "Two.", "tool_calls": [CALL, CALL]}
    made = said(calls, {"from": "tool", "value": "<tool_response>1</tool_response>"}, {"role": "tool", "content": "2"})
    assert made[0]["content"] == "Two."
    assert [call["id"] for call in made[0]["tool_calls"]] == ["call_0_0", "call_0_1"]
    assert made[1:] == [
        {"role": "tool", "content": "1", "tool_call_id": "call_0_0"},
        {"role": "tool", "content": "2", "tool_call_id": "call_0_1"},
    ]


def test_text_and_calls_in_turns_of_their_own_are_one_answer():
    call = {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'}
    made = said({"from": "gpt", "value": "I look."}, call, call, *[{"from": "observation", "value": n} for n in "78"])
    calls = [{"id": f"call_{i}_0", **CALL} for i in (1, 2)]
    assert made == [
        {"role": "assistant", "content": "I look.", "tool_calls": calls},
        {"role": "tool", "content": "7", "tool_call_id": "call_1_0"},
        {"role": "tool", "content": "8", "tool_call_id": "call_2_0"},
    ]


def test_an_answer_that_is_not_trained_stays_apart_from_calls_that_are():
    call = {"from": "function_call", "value": '{"name": "f"}'}
    assert len(said({"from": "gpt", "value": "I look.", "train": False}, call)) == 2


def test_text_beside_a_tagged_call_is_kept():
    (made,) = said({"from": "gpt", "value": 'Let me look. <tool_call>{"name": "f"}</tool_call>'})
    assert made["content"] == "Let me look."
    assert made["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}


def test_a_call_that_is_no_call_is_refused():
    with pytest.raises(NotConvertible, match=r"messages\[0\] calls 'f\(1\)', expected JSON with name and arguments"):
        said({"from": "function_call", "value": "f(1)"})


def test_weights_become_whole_numbers_and_an_empty_list_of_calls_goes():
    (made,) = said({"role": "assistant", "content": "Hi", "weight": 0.0, "tool_calls": []})
    assert made == {"role": "assistant", "content": "Hi", "weight": 0}
    assert type(made["weight"]) is int


def test_what_a_role_cannot_have_is_counted():
    dropped = Counter()
    made = chat_messages([{"role": "user", "content": "Hi", "weight": 1, "name": None}], dropped)
    assert (made, dropped) == ([{"role": "user", "content": "Hi"}], {"messages[].weight": 1})


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    {
        "as they are": ([TOOL], [TOOL]),
        "not wrapped": ([TOOL["function"]], [TOOL]),
        "as JSON": ('[{"name": "f", "parameters": {"type": "object"}}]', [TOOL]),
        "with nulls of a table": (
            [{"name": "f", "description": None, "parameters": {"type": "object", "enum": None}}], [TOOL]),
        "of the Responses API": ([{"type": "function", **TOOL["function"]}], [TOOL]),
        "of Anthropic": ([{"name": "f", "input_schema": {"type": "object"}, "cache_control": {}}], [TOOL]),
        "none": (None, None),
        "empty": ([], None),
        "blank": (" ", None),
    }.values(),
)  # fmt: skip
def test_tools(theirs, ours):
    assert chat_tools(theirs) == ours


def test_a_null_that_is_a_value_is_kept():
    tool = {"name": "f", "parameters": {"properties": {"x": {"default": None, "enum": [None, 1], "title": None}}}}
    assert chat_tools([tool])[0]["function"]["parameters"] == {
        "properties": {"x": {"default": None, "enum": [None, 1]}}
    }


@pytest.mark.parametrize("tools", ["f(x)", {"name": "f"}, 7])
def test_tools_that_are_no_list_are_refused(tools):
    with pytest.raises(NotConvertible, match=r"^tools is .*, expected a list of functions, or its JSON$"):
        chat_tools(tools)


THOUGHTS = {
    "gpt-oss' key": {"thinking": "Well."},
    "OpenRouter's key": {"reasoning": "Well.", "reasoning_content": None},
    "its own key": {"reasoning_content": "Well."},
    "two keys that say the same": {"reasoning": "Well.", "reasoning_content": "Well."},
    "tags": {"content": "<think>\nWell.\n</think>\n\nHi"},
    "tags in parts": {"content": [{"type": "text", "text": "<think>Well."}, {"type": "text", "text": "</think>Hi"}]},
}


@pytest.mark.parametrize("thought", THOUGHTS.values(), ids=THOUGHTS)
def test_every_way_to_write_a_thought(thought):
    made = said({"role": "assistant", "content": "Hi", **thought})
    assert made == [{"role": "assistant", "content": "Hi", "reasoning_content": "Well."}]


@pytest.mark.parametrize("empty", [{"content": "<think>\n\n</think>\n\nHi"}, {"thinking": " "}])
def test_a_thought_of_nothing_is_none(empty):
    assert said({"role": "assistant", "content": "Hi", **empty}) == [{"role": "assistant", "content": "Hi"}]


def test_what_is_no_thought_stays():
    talking = {"role": "assistant", "content": "Write <think> and </think>."}
    asking = {"role": "user", "content": "<think>Well.</think>Hi"}
    cut = {"role": "assistant", "content": "<think>Well."}
    twice = {"role": "assistant", "content": "<think>A</think>Hi", "reasoning_content": "B"}
    assert said(asking, talking, cut, twice) == [asking, talking, cut, twice]
