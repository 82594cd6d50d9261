"""Pairs of answers that a judge compares: those of a run's report, as data that says nothing about whose they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Said = Mapping[str, Any]  # an answer's text, its tool calls, and whether it was cut off


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """An answer before and after tuning to the same conversation."""

    row: int
    message: int  # place of the answer in the row's messages
    place: str
    conversation: Sequence[Mapping[str, Any]]
    tools: Sequence[str]
    reference: Said
    before: Said
    after: Said

    @property
    def is_alike(self) -> bool:
        return self.before == self.after


def pairs_of(result: Mapping[str, Any]) -> list[AnswerPair]:
    """The pairs of a report in its order: answers of the tuned model, and of the one that it is compared with."""
    before = result["verdict"]["against"]
    return [
        AnswerPair(
            number,
            answer["message"],
            row["place"],
            [_turn(message) for message in row["messages"][: answer["message"]]],
            row["tools"],
            _turn(row["messages"][answer["message"]], answer["reference"]),
            _said(answer[before]),
            _said(answer["tuned"]),
        )
        for number, row in enumerate(result["rows"])
        for answer in row["answers"]
    ]


def _said(answer: Mapping[str, Any]) -> Said:
    calls = {"tool_calls": answer["calls"]} if answer["calls"] else {}
    return {"text": answer["text"], **calls, **({} if answer["ended"] else {"cut_off": True})}


def _turn(message: Mapping[str, Any], text: str | None = None) -> Said:
    """A message as the judge sees it; a reference has the text that answers are compared with, and no role."""
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    head = {"role": message["role"], "text": message.get("content") or ""} if text is None else {"text": text}
    return {**head, **({"tool_calls": calls} if calls else {})}
