"""Rows, limits, questions, measures and verdict know no tensors; whoever answers feeds them."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import trainer.inference.evaluation
from tests.manifests import data_file, manifest
from trainer.config.schema import EvaluationConfig
from trainer.data.conversations import Conversation, Message, ToolCall
from trainer.inference.client import ChatMessage, Reply, Sampling, Tool
from trainer.inference.evaluation.chat_endpoint import EndpointAnswerer
from trainer.inference.evaluation.comparison import compare
from trainer.inference.evaluation.held_out import HeldOut
from trainer.inference.report.page import row_view
from trainer.inference.tool_calls import Call
from trainer.runs import create_run

FOLDER = Path(trainer.inference.evaluation.__file__).parent
TENSORS = {"torch", "transformers", "peft", "safetensors", "accelerate"}
LOCAL = {"trainer.inference.local", "trainer.inference.generate", "trainer.inference.evaluation.local_model"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def imported(file: Path) -> set[str]:
    """Every module that the file imports, in functions and for types too."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_only_the_local_answerer_knows_tensors(file: Path) -> None:
    found = imported(file)
    knows = {name for name in found if name.partition(".")[0] in TENSORS or name in LOCAL}
    assert bool(knows) == (file.stem == "local_model")


@dataclass
class Scripted:
    """A client of a test, which notes what it is asked: no code of ours stands behind it."""

    answers: dict[str, Reply]  # by the last message
    asked: list[tuple[Sequence[ChatMessage], Sampling, Sequence[Tool]]] = field(default_factory=list)

    def reply(self, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool] = ()) -> Reply:
        self.asked.append((messages, sampling, tools))
        return self.answers[messages[-1]["content"]]


def row(line: int, *said: Message, tools: tuple[Any, ...] = ()) -> Conversation:
    return Conversation(said, tools, "rows.jsonl", line)


def test_an_endpoints_answers_become_the_same_document_without_losses(settings: Any, tmp_path: Path) -> None:
    run = create_run(settings(run__root=str(tmp_path), run__name="asked"))
    run.write_manifest(manifest(data=(data_file("rows.jsonl"),)))
    bonn = Call("weather", {"city": "Bonn"})
    called = Message("assistant", None, tool_calls=(ToolCall("c0", "weather", '{"city": "Bonn"}'),))
    rows = (
        row(
            1,
            Message("system", "Be brief."),
            Message("user", "Hub?"),
            Message("assistant", "<think>a</think>The middle."),
        ),
        row(2, Message("user", "Bonn?"), called, tools=(TOOL,)),
    )
    base = Scripted({"Hub?": Reply("Nothing", (), False), "Bonn?": Reply("Rain.", (), True)})
    tuned = Scripted(
        {"Hub?": Reply(" the middle ", (), True, thought=" The centre? "), "Bonn?": Reply("", (bonn,), True)}
    )
    held_out = HeldOut(rows, 5, ("rows.jsonl",), EvaluationConfig(max_rows=2, max_new_tokens=9), 7, ("noted",), None)
    told, tuned_last = list[str](), ["base", "tuned"]
    answerer = EndpointAnswerer({"base": base, "tuned": tuned}, held_out.max_new_tokens)
    found = compare(run, held_out, answerer, told.append, since=0.0)
    assert told == ["noted", "comparing base and tuned model on 2 of 5 held-out rows, drawn at random with seed 7"]
    assert sorted(tuned.asked, key=lambda asked: str(asked[0])) == [
        ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hub?"}], Sampling(9), ()),
        ([{"role": "user", "content": "Bonn?"}], Sampling(9), (TOOL,)),
    ]
    thoughts = [
        answer.get("reasoning_content") for answer in (found["rows"][0]["answers"][0][key] for key in tuned_last)
    ]
    assert (thoughts, found["rows"][0]["answers"][0]["reference"]) == ([None, "The centre?"], "The middle.")
    shown = row_view(found["rows"][0], tuned_last)["parts"][-1]
    assert [answer["thought"] for answer in (*shown["shown"], shown["reference"])] == ["", "The centre?", "a"]
    assert found["verdict"]["right"] == {"base": 0, "tuned": 2}
    assert [row["answers"][0]["tuned"]["text"] for row in found["rows"]] == ["the middle", ""]
    assert found["rows"][1]["answers"][0]["tuned"]["calls"] == [{"name": "weather", "arguments": {"city": "Bonn"}}]
    keys = {measure["key"] for measure in found["measures"]}
    assert {"right", "calls", "chrf", "ended"} <= keys
    assert keys.isdisjoint({"loss", "token_accuracy"})
    assert "loss" not in found["verdict"]["sentence"]
