"""Every layout of two answers becomes the service's preference row; nothing of it goes without a word."""

from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.layouts.messages import NotConvertible
from trainer.data.layouts.preferences import OTHERS, PREFERRED, PROMPTS, pair_of
from trainer.data.rules.findings import FindingList
from trainer.data.rules.preferences import check_preference
from trainer.data.rules.tools import ToolLists


def said(role, text):
    return {"role": role, "content": text}


ASKED, GOOD, BAD = said("user", "Hi"), said("assistant", "Hello"), said("assistant", "What?")
TURNS = [ASKED, said("assistant", "Yes?"), said("user", "Well")]
SYSTEM = said("system", "Be brief.")
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
CALLING = {
    "role": "assistant",
    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "find", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "a", "content": "Red"}


def shared(*turns):
    return [{"from": "human" if turn["role"] == "user" else "gpt", "value": turn["content"]} for turn in turns]


LAYOUTS = {
    "the service's own": (
        {"input": {"messages": TURNS}, "preferred_output": [GOOD], "non_preferred_output": [BAD]}, TURNS),
    "an output that is one message": (
        {"input": {"messages": TURNS}, "preferred_output": GOOD, "non_preferred_output": BAD}, TURNS),
    "outputs that are texts": (
        {"input": {"messages": [ASKED]}, "preferred_output": "Hello", "non_preferred_output": "What?"}, [ASKED]),
    "TRL, texts": ({"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}, [ASKED]),
    "TRL, messages": ({"prompt": TURNS, "chosen": [GOOD], "rejected": [BAD]}, TURNS),
    "TRL, the prompt in both": ({"chosen": [*TURNS, GOOD], "rejected": [*TURNS, BAD]}, TURNS),
    "a prompt in text, and in both again": (
        {"prompt": "Hi", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD], "messages": [ASKED, GOOD]}, [ASKED]),
    "a table's lists as text": (
        {"chosen": "[{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]",
         "rejected": "[{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'What?'}]"}, [ASKED]),
    "a system prompt and a question": (
        {"system": "Be brief.", "question": "Hi", "chosen": "Hello", "rejected": "What?"}, [SYSTEM, ASKED]),
    "ShareGPT": (
        {"conversations": shared(*TURNS), "chosen": shared(GOOD)[0], "rejected": shared(BAD)[0]}, TURNS),
    "Alpaca": ({"instruction": "Hi", "input": "", "chosen": "Hello", "rejected": "What?"}, [ASKED]),
    "Alpaca with an input": (
        {"instruction": "Name it.", "input": "A bird", "chosen": "Hello", "rejected": "What?"},
        [said("user", "Name it.\n\nA bird")]),
    "a rejected response": ({"messages": [*TURNS, GOOD], "rejected_response": "What?"}, TURNS),
    "rejected messages": ({"messages": [*TURNS, GOOD], "rejected_messages": [*TURNS, BAD]}, TURNS),
    "dialogues": (
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Well\n\nAssistant: Hello",
         "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Well\n\nAssistant: What?"}, TURNS),
    "a dialogue and two answers": (
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello".strip(), "rejected": "What?"}, [ASKED]),
}  # fmt: skip


def no_mistakes(row):
    findings = FindingList("", "openai")
    check_preference(row, ToolLists(), findings)
    return [str(finding) for finding in findings.findings if finding.severity == "error"] == []


@pytest.mark.parametrize(("row", "prompt"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_of_two_answers_becomes_the_service_s(row, prompt):
    dropped = Counter()
    made = pair_of(row, dropped)
    assert made == {"input": {"messages": prompt}, "preferred_output": [GOOD], "non_preferred_output": [BAD]}
    assert no_mistakes(made)
    assert not dropped
    assert pair_of(made, dropped) == made


def test_tools_and_calls_are_carried():
    row = {"prompt": [ASKED], "tools": [TOOL["function"]], "chosen": [CALLING], "rejected": [BAD]}
    expected = {
        "input": {"messages": [ASKED], "tools": [TOOL]},
        "preferred_output": [CALLING],
        "non_preferred_output": [BAD],
    }
    made = pair_of(row, Counter())
    assert made == expected
    assert no_mistakes(made)
    own = made | {"input": made["input"] | {"parallel_tool_calls": False}}
    assert pair_of(own, Counter()) == own


def test_calls_that_both_answers_begin_with_are_part_of_the_prompt():
    before = [ASKED, CALLING, RESULT]
    made = pair_of({"tools": [TOOL], "chosen": [*before, GOOD], "rejected": [*before, BAD]}, Counter())
    assert (made["input"]["messages"], made["preferred_output"], made["non_preferred_output"]) == (
        before,
        [GOOD],
        [BAD],
    )


def test_keys_without_a_place_are_counted():
    dropped = Counter()
    row = {"prompt": "Hi", "chosen": "Hello", "rejected": "What?", "score_chosen": 8, "messages": [ASKED]}
    pair_of(row, dropped)
    assert dropped == {"score_chosen": 1, "messages": 1}


def test_a_weight_of_1_is_no_word_of_the_format():
    made = pair_of({"prompt": "Hi", "chosen": [GOOD | {"weight": 1}], "rejected": [BAD]}, Counter())
    assert made["preferred_output"] == [GOOD]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Hi", "chosen": "Hello"}, "has no two answers, expected preferred_output and non_preferred_output"),
        ({"messages": [ASKED, GOOD]}, "has no two answers"),
        ({"chosen": "Hello", "rejected": "What?"}, "has chosen and rejected without a question, expected one as input"),
        (
            {"prompt": "Hi", "chosen": [GOOD], "rejected": [BAD | {"weight": 0}]},
            "rejected has an answer that is not trained, expected two that are; remove its weight",
        ),
        ({"prompt": "Hi", "chosen": 7, "rejected": "What?"}, "chosen is 7, expected a non-empty list of messages"),
    ],
)
def test_what_is_no_pair_is_refused_with_the_reason(row, reason):
    with pytest.raises(NotConvertible) as caught:
        pair_of(row, Counter())
    assert str(caught.value).startswith(reason)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 1) | st.sampled_from(["", "Hi", "\n\nHuman: a\n\nAssistant: b", "[{"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "from", "value", "type", "text", "messages", "tools", "tool_calls", "weight"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
KEYS = st.sampled_from([*PREFERRED, *OTHERS, *PROMPTS, "messages", "instruction", "system", "tools"])


@pytest.mark.apart
@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEYS, VALUES, min_size=2, max_size=6))
def test_rows_of_any_shape_are_converted_or_refused(row):
    with suppress(NotConvertible):
        made = pair_of(row, Counter())
        assert set(made) == {"input", "preferred_output", "non_preferred_output"}
        no_mistakes(made)
