"""Preference rows: what each malformed one is told, and what a sound one becomes."""

import json

import pytest

from tests.golden_messages import finding
from trainer.data.conversations import Conversation, Message
from trainer.data.read.checks import check_files
from trainer.data.read.rows import read_conversations

USER = {"role": "user", "content": "Hi"}
GOOD = {"role": "assistant", "content": "Hello"}
BAD = {"role": "assistant", "content": "What?"}
FUNCTION = {"name": "find", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
CALLING = {"role": "assistant", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "7"}


def pair(**keys):
    """A sound row, changed by `keys`; None leaves one out."""
    row = {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]} | keys
    return {key: value for key, value in row.items() if value is not None}


def asking(*messages, **keys):
    return pair(input={"messages": list(messages), **keys})


def told(row, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    found = read_conversations(path, method="dpo").findings
    return [str(finding).removeprefix(f"{path}:1: ").replace(str(path), "FILE") for finding in found]


EMPTY_ANSWER = {"role": "assistant", "content": ""}
MALFORMED = {
    "row is a chat": ({"messages": [USER, GOOD]}, ["PAIR_NEEDED: the file holds rows of the chat format"]),
    "chosen and rejected": ({"prompt": "Hi", "chosen": "a", "rejected": "b"}, ["PAIR_NEEDED: the file holds rows of"]),
    "no answer at all": (
        pair(preferred_output=None, non_preferred_output=None, output=[GOOD]),
        [
            "UNKNOWN_KEY: the row has the unknown key 'output'",
            "PAIR: preferred_output is absent",
            "PAIR: non_preferred_output is absent",
        ],
    ),
    "unknown key": (pair(weight=1), ["UNKNOWN_KEY: the row has the unknown key 'weight'"]),
    "unknown key of the input": (
        asking(USER, functions=[FUNCTION]),
        ["UNKNOWN_KEY: input has the unknown key 'functions'"],
    ),
    "input is a list": (pair(input=[USER]), ["PAIR: input is a list"]),
    "input without messages": (pair(input={"tools": [TOOL]}), ["PAIR: input.messages is absent"]),
    "input is empty": (asking(), ["PAIR: input.messages is an empty list"]),
    "preferred output is a text": (pair(preferred_output="Hello"), ["PAIR: preferred_output is 'Hello'"]),
    "preferred output is one message": (pair(preferred_output=GOOD), ["PAIR: preferred_output is an object"]),
    "non-preferred output is empty": (pair(non_preferred_output=[]), ["PAIR: non_preferred_output is an empty list"]),
    "answers are equal": (
        pair(non_preferred_output=[GOOD]),
        ["PAIR_EQUAL: non_preferred_output is the same as preferred_output"],
    ),
    "answer in the wrong role": (
        pair(preferred_output=[USER]),
        ["PAIR_ROLE: preferred_output[0].role is 'user'"],
    ),
    "answer of an unknown role": (
        pair(non_preferred_output=[{"role": "bot", "content": "x"}]),
        ["ROLE: non_preferred_output[0].role is 'bot'"],
    ),
    "answer with a weight": (
        pair(non_preferred_output=[BAD | {"weight": 0}]),
        ["PAIR_WEIGHT: non_preferred_output[0] has weight"],
    ),
    "answer ends with a result": (
        pair(input={"messages": [USER], "tools": [TOOL]}, preferred_output=[CALLING, RESULT]),
        [
            "PAIR_TURNS: preferred_output holds 2 messages",
            "LAST_MESSAGE: preferred_output[1] is a tool message and the last one",
        ],
    ),
    "answer is empty": (pair(non_preferred_output=[EMPTY_ANSWER]), ["EMPTY_ANSWER: non_preferred_output[0].content"]),
    "prompt ends with an answer": (
        asking(USER, GOOD),
        [
            "ASSISTANT_TWICE: preferred_output[0] follows input.messages[1]",
            "ASSISTANT_TWICE: non_preferred_output[0] follows input.messages[1]",
        ],
    ),
    "prompt is wrong, told once": (
        asking({"role": "user", "content": 7}),
        ["CONTENT: input.messages[0].content is 7"],
    ),
    "tools are wrong, told once": (asking(USER, tools={}), ["TOOLS: input.tools is an object"]),
    "parallel_tool_calls is a text": (
        asking(USER, parallel_tool_calls="no"),
        ["PARALLEL_TOOL_CALLS: input.parallel_tool_calls is 'no'"],
    ),
    "call of a tool that is not offered": (
        pair(preferred_output=[CALLING]),
        ["CALL_NAME: preferred_output[0].tool_calls[0].function.name is 'find' in a row without tools"],
    ),
    "image": (
        asking({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}]}),
        ["PAIR_IMAGE: input.messages[0].content[0] is an image"],
    ),
}


@pytest.mark.parametrize(("row", "expected"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_row_is_told_with_its_places(row, expected, tmp_path):
    found = [finding(message) for message in told(row, tmp_path) if "NO_ROWS" not in message]
    assert len(found) == len(expected), found
    assert all(message.removeprefix("FILE: ").startswith(start) for message, start in zip(found, expected, strict=True))


def test_a_service_takes_no_thoughts_of_pairs_either(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(pair(preferred_output=[GOOD | {"reasoning_content": "a"}])) + "\n")
    for backend, expected in (("local", []), ("openai", ["preferred_output[0]"])):
        found = read_conversations(file, backend=backend, method="dpo").errors
        assert [one.where for one in found if one.code == "SERVICE_THOUGHT"] == expected


def test_a_sound_row_is_its_prompt_and_both_answers(tmp_path):
    earlier = {"role": "assistant", "content": "Yes?"}
    row = pair(
        input={"messages": [USER, earlier, USER], "tools": [TOOL], "parallel_tool_calls": False},
        preferred_output=[CALLING],
    )
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    report = read_conversations(path)
    [read] = report.conversations
    assert report.findings == []
    asked = Message("user", "Hi", weight=0)
    prompt = (asked, Message("assistant", "Yes?", weight=0), asked)
    [call] = read.messages[3].tool_calls
    assert (call.name, read.tools, read.parallel_tool_calls) == ("find", (TOOL,), False)
    assert [message.trained for message in read.messages] == [False, False, False, True]
    other = Message("assistant", "What?", weight=0)
    assert (read.messages[:3], read.num_prompt, read.non_preferred) == (prompt, 3, (other,))
    assert [branch.messages for branch in read.branches] == [read.messages, (*prompt, other)]


def test_a_chat_row_is_its_only_branch():
    row = Conversation((Message("user", "Hi"), Message("assistant", "Hello")), (), "rows.jsonl", 1)
    assert row.branches == (row,)


def test_the_first_row_of_a_run_says_what_all_files_hold(tmp_path):
    pairs, chats = tmp_path / "pairs.jsonl", tmp_path / "chats.jsonl"
    pairs.write_text(json.dumps(pair()) + "\n", encoding="utf-8")
    chats.write_text(json.dumps({"messages": [USER, GOOD]}) + "\n", encoding="utf-8")
    for first, second, code in ((pairs, chats, "PAIR_NEEDED"), (chats, pairs, "PREFERENCE")):
        report = check_files([first], [second])
        assert [(error.code, error.file) for error in report.errors] == [(code, str(second))]
    assert check_files([pairs]).method == "dpo"
    assert [error.code for error in check_files([pairs], method="sft").errors] == ["PREFERENCE"]


def test_pairs_share_a_prompt_and_not_a_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    other = pair(non_preferred_output=[{"role": "assistant", "content": "Who?"}])
    path.write_text("".join(json.dumps(row) + "\n" for row in (pair(), other, pair())), encoding="utf-8")
    found = [(finding.line, finding.code) for finding in check_files([path]).findings if finding.line]
    assert found == [(3, "DUPLICATE")]


def test_a_held_out_prompt_that_is_trained_is_told(tmp_path):
    train, held_out = tmp_path / "train.jsonl", tmp_path / "held_out.jsonl"
    other = pair(non_preferred_output=[{"role": "assistant", "content": "Who?"}])
    train.write_text(json.dumps(pair()) + "\n", encoding="utf-8")
    held_out.write_text(json.dumps(other) + "\n" + json.dumps(pair()) + "\n", encoding="utf-8")
    told, leak = (finding for finding in check_files([train], [held_out]).findings if finding.line)
    assert (told.line, told.code, told.severity, leak.line, leak.code) == (1, "SAME_PROMPT", "warning", 2, "LEAK")
    assert str(told).endswith(
        f"the row has the prompt of {train}:1, which is trained, expected a prompt that is not; hold out all pairs of "
        "a prompt: trainer data split FILE"
    )


def test_a_key_in_either_answer_is_found_where_it_stands(tmp_path):
    path = tmp_path / "rows.jsonl"
    secret = "h" + "f_" + "aBcDeF" * 6
    row = pair(non_preferred_output=[{"role": "assistant", "content": f"It is {secret}"}])
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert [(finding.code, finding.where) for finding in check_files([path]).findings if finding.line] == [
        ("SECRET", "non_preferred_output[0].content")
    ]
