"""A conversation line by line, with models that say what the test gives them."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from trainer.data.read.rows import read_conversations
from trainer.errors import TrainingError
from trainer.inference.client import ChatMessage, Sampling, Tool
from trainer.inference.dialogue import COMMANDS, Dialogue, Notice, Speaker
from trainer.inference.thoughts import Thought
from trainer.inference.tool_calls import Call

TOOL = {
    "type": "function",
    "function": {"name": "stock", "parameters": {"type": "object", "properties": {"part": {"type": "string"}}}},
}
HUB, LOCK = Call("stock", {"part": "hub"}), Call("stock", {"part": "lock"})


class Scripted:
    """A model with prepared answers, which keeps what it was asked. An error among the pieces is raised."""

    def __init__(self, name: str, *answers: Sequence[Any]) -> None:
        self.name, self.answers, self.asked = name, list(answers), list[tuple[list[ChatMessage], list[Tool]]]()
        self.finished = 0

    def stream(
        self, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool] = ()
    ) -> Iterator[str | Call]:
        self.asked.append((list(messages), list(tools)))
        for piece in self.answers.pop(0):
            if isinstance(piece, BaseException):
                raise piece
            yield piece
        self.finished += 1


def dialogue(*answers: Sequence[Any], base: Sequence[Sequence[Any]] = (), **more: Any) -> Dialogue:
    return Dialogue(Scripted("tuned", *answers), Scripted("base", *base), Sampling(), **more)


def roles(messages: Sequence[ChatMessage]) -> list[tuple[Any, Any]]:
    return [(message["role"], message["content"]) for message in messages]


def test_words_come_as_they_are_said_and_the_conversation_is_remembered() -> None:
    talk = dialogue(["He", "llo."], ["By", "e."], system="Be kind.")
    assert list(talk.submit(" Hi \n")) == ["He", "llo."]
    assert list(talk.submit("Leave")) == ["By", "e."]
    assert roles(talk.model.asked[1][0]) == [
        ("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello."), ("user", "Leave"),
    ]  # fmt: skip


def test_a_thought_is_shown_apart_remembered_and_saved(tmp_path: Path) -> None:
    talk = dialogue([Thought("H"), Thought("m. "), "Hel", "lo."], ["Bye."], save_to=tmp_path / "saved.jsonl")
    assert list(talk.submit("Hi")) == [Thought("H"), Thought("m. "), "Hel", "lo."]
    said = {"role": "assistant", "content": "Hello.", "reasoning_content": "Hm."}
    list(talk.submit("/save"))
    assert json.loads(talk.save_to.read_text())["messages"] == [{"role": "user", "content": "Hi"}, said]
    list(talk.submit("Leave"))
    assert talk.model.asked[1][0][1] == said
    assert talk.messages[-1] == {"role": "assistant", "content": "Bye."}


def test_a_line_with_broken_characters_does_not_reach_the_model() -> None:
    talk = dialogue()
    assert list(talk.submit("caf\udce9")) == [Notice("the line is not UTF-8 text")]
    assert talk.messages == talk.model.asked == []


def test_an_empty_line_says_nothing() -> None:
    talk = dialogue()
    assert list(talk.submit("  \n")) == []
    assert talk.messages == []


def test_both_models_answer_the_same_conversation() -> None:
    talk = dialogue(["One."], ["Two."], base=[["Uno."]])
    list(talk.submit("a"))
    (notice,) = talk.submit("/base")
    assert notice == Notice("from here on both answer; the conversation continues with the answers of tuned")
    assert list(talk.submit("b")) == [Speaker("base"), "Uno.", Speaker("tuned"), "Two."]
    assert talk.base.asked == talk.model.asked[1:]
    assert roles(talk.messages) == [("user", "a"), ("assistant", "One."), ("user", "b"), ("assistant", "Two.")]
    assert "only tuned answers" in next(talk.submit("/base")).text


def test_without_a_base_there_is_nothing_to_compare() -> None:
    talk = Dialogue(Scripted("remote"), None, Sampling())
    assert list(talk.submit("/base")) == [Notice("there is no base model to compare with here")]


def test_reset_forgets_and_keeps_the_system_prompt() -> None:
    talk = dialogue(["One."], ["Two."], system="Be kind.")
    list(talk.submit("a"))
    assert list(talk.submit("/reset")) == [Notice("forgotten")]
    list(talk.submit("b"))
    assert roles(talk.model.asked[1][0]) == [("system", "Be kind."), ("user", "b")]


def test_the_system_prompt_can_be_changed_shown_and_left_out() -> None:
    talk = dialogue(["One."], ["Two."])
    assert list(talk.submit("/system")) == [Notice("there is no system prompt")]
    assert list(talk.submit("/system Be brief. ")) == [Notice("system: Be brief.")]
    list(talk.submit("a"))
    assert list(talk.submit("/system ''")) == [Notice("there is no system prompt")]
    list(talk.submit("b"))
    assert [roles(messages)[0][0] for messages, _ in talk.model.asked] == ["system", "user"]


@pytest.mark.parametrize("line", ["/quit", "/exit"])
def test_quit_ends_it(line: str) -> None:
    talk = dialogue()
    assert list(talk.submit(line)) == []
    assert talk.ended


def test_help_names_every_command() -> None:
    (notice,) = dialogue().submit("/help")
    for usage in COMMANDS:
        assert usage in notice.text
        assert "is no command" not in "".join(str(shown) for shown in dialogue().submit(usage.split()[0]))


def test_an_unknown_command_is_told_and_can_still_be_said() -> None:
    talk = dialogue(["Yes."])
    (notice,) = talk.submit("/rest now")
    assert notice.text == (
        "'/rest' is no command, did you mean /reset?; /help shows them, and //rest says it to the model"
    )
    list(talk.submit("//rest now"))
    assert talk.messages[0]["content"] == "/rest now"


@pytest.mark.parametrize("error", [TrainingError("the conversation has 9 tokens"), KeyboardInterrupt()])
def test_a_question_without_an_answer_is_taken_back(error: BaseException) -> None:
    talk = dialogue(["One."], ["Tw", error])
    list(talk.submit("a"))
    before = list(talk.messages)
    if isinstance(error, TrainingError):
        last = list(talk.submit("b"))[-1]
        assert last == Notice("the conversation has 9 tokens; /reset begins a new conversation")
    else:
        with pytest.raises(KeyboardInterrupt):
            list(talk.submit("b"))
    assert talk.messages == before


def test_whoever_stops_reading_takes_the_question_back() -> None:
    talk = dialogue(["On", "e."])
    shown = talk.submit("a")
    assert next(shown) == "On"
    shown.close()
    assert (talk.messages, talk.model.finished) == ([], 0)


# Tools


def test_calls_are_shown_and_answered_in_place_of_the_tools() -> None:
    talk = dialogue(["Wait. ", HUB, LOCK], ["Both are there."], tools=[TOOL])
    assert list(talk.submit("Hub and lock?")) == [
        "Wait. ", HUB, LOCK, Notice("/tool RESULT answers in place of the tool"),
    ]  # fmt: skip
    assert list(talk.submit("/tool 3")) == [Notice(f"next: {LOCK}")]
    assert list(talk.submit("/tool 1")) == ["Both are there."]
    messages, tools = talk.model.asked[1]
    assert tools == [TOOL]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool"]
    calls = messages[1]["tool_calls"]
    assert [(call["id"], call["function"]) for call in calls] == [
        ("call_1", {"name": "stock", "arguments": '{"part": "hub"}'}),
        ("call_2", {"name": "stock", "arguments": '{"part": "lock"}'}),
    ]
    assert [(message["tool_call_id"], message["content"]) for message in messages[2:]] == [
        ("call_1", "3"),
        ("call_2", "1"),
    ]


@pytest.mark.parametrize("line", ["/tool 3", "/tool"])
def test_without_a_call_there_is_nothing_to_answer(line: str) -> None:
    assert list(dialogue().submit(line)) == [Notice("no tool call waits for a result")]


# Rows to train on


def test_a_turn_is_saved_as_a_row_that_trains_its_answer_alone(tmp_path: Path) -> None:
    talk = dialogue(["One."], ["Two."], system="Be kind.")
    list(talk.submit("a"))
    list(talk.submit("b"))
    file = tmp_path / "new rows.jsonl"
    assert list(talk.submit(f"/save {file}")) == [Notice(f"saved to {file}")]
    report = read_conversations(file)
    assert [finding for finding in report.findings if finding.severity == "error"] == []
    (row,) = report.conversations
    assert [(m.role, m.content, m.trained) for m in row.messages] == [
        ("system", "Be kind.", False), ("user", "a", False), ("assistant", "One.", False),
        ("user", "b", False), ("assistant", "Two.", True),
    ]  # fmt: skip


def test_a_row_with_calls_keeps_its_tools(tmp_path: Path) -> None:
    talk = dialogue([HUB], ["Three."], tools=[TOOL], save_to=tmp_path / "rows.jsonl")
    list(talk.submit("Hubs?"))
    list(talk.submit("/save"))
    list(talk.submit("/tool 3"))
    list(talk.submit("/save"))
    first, second = read_conversations(tmp_path / "rows.jsonl").conversations
    assert [call.name for call in first.messages[-1].tool_calls] == ["stock"]
    assert [message.role for message in second.messages] == ["user", "assistant", "tool", "assistant"]
    assert list(first.tools) == list(second.tools) == [TOOL]


def test_each_turn_is_a_row_once_and_rows_are_appended(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}')  # no \n
    talk = dialogue(["One."], ["Two."], save_to=file)
    list(talk.submit("a"))
    list(talk.submit("/save"))
    assert list(talk.submit("/save")) == [Notice(f"this turn is in {file} already")]
    list(talk.submit("b"))
    list(talk.submit("/save"))
    answers = [row.messages[-1].content for row in read_conversations(file).conversations]
    assert answers == ["y", "One.", "Two."]


def test_there_must_be_an_answer_to_save(tmp_path: Path) -> None:
    talk = dialogue(save_to=tmp_path / "rows.jsonl")
    assert list(talk.submit("/save")) == [Notice("there is no answer to save yet")]
    assert not talk.save_to.exists()


@pytest.mark.parametrize("said", ["", "\udcff"])
def test_a_row_that_could_not_be_trained_is_not_saved(said: str, tmp_path: Path) -> None:
    talk = dialogue([said], save_to=tmp_path / "rows.jsonl")
    list(talk.submit("a"))
    (notice,) = talk.submit("/save")
    assert notice.text.startswith(f"not saved: {talk.save_to}: ")
    assert not talk.save_to.exists()


def test_only_chat_files_are_appended_to(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("question,answer\n1,2\n")
    talk = dialogue(["One."])
    list(talk.submit("a"))
    for file, reason in ((table, "is a table (CSV), expected chat JSONL"), (tmp_path, "Is a directory"),
                         (tmp_path / "no" / "rows.jsonl", "No such file or directory")):  # fmt: skip
        (notice,) = talk.submit(f"/save {file}")
        assert notice.text.startswith("not saved: ")
        assert reason in notice.text
    assert table.read_text() == "question,answer\n1,2\n"
    assert json.dumps(talk.saved) == "null"
