"""How many held-out rows are different questions, how many of their answers differ, and which were trained on.

Rows that expect the same answer are one observation: who knows it for one knows it for the others. A short answer, such
as a label, is a choice that each question makes anew, so that such rows are one only where they ask the same.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.data.conversations import FileReader, Message
from trainer.data.render.rendering import as_object
from trainer.inference.evaluation.rightness import folded, is_long
from trainer.inference.tool_calls import whole_numbers, without_thinking


@dataclass(frozen=True, slots=True)
class Distinct:
    """Of the rows compared. `seen` counts the `answers` that stand among the trained ones; None where nobody knows."""

    rows: int
    answers: int  # of more than a few words, or calls with arguments
    seen: int | None
    independent: int  # what the intervals count as one observation each


def count_distinct(rows: Sequence[Mapping[str, Any]], trained: Sequence[str] | None) -> Distinct:
    """`rows` as report.json has them; `trained` are the files that were trained on, None where one is gone."""
    answers = {key for row in rows for key in _long_answers(row)}
    seen = None if trained is None else len(_among(answers, trained))
    return Distinct(len(set(map(_conversation, rows))), len(answers), seen, len(set(groups(rows))))


def groups(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """For each row the number of its group: rows whose longest answer is the same, or that are the same."""
    numbers: dict[str, int] = {}
    return [
        numbers.setdefault(max(_long_answers(row), key=len, default=_conversation(row)), len(numbers)) for row in rows
    ]


def _long_answers(row: Mapping[str, Any]) -> list[str]:
    """What tells each answer of a row from another, of those that are no choice among a few."""
    messages = [row["messages"][answer["message"]] for answer in row["answers"]]
    return [key for message in messages if (key := _key(message)) is not None]


def _key(message: Mapping[str, Any]) -> str | None:
    text = without_thinking(message.get("content") or "")
    calls = sorted(_call(call["function"]) for call in message.get("tool_calls") or ())
    if any(arguments not in ("", "{}") for _, arguments in calls):
        return json.dumps([folded(text), calls])
    return json.dumps([folded(text), []]) if is_long(text) else None


def _call(function: Mapping[str, Any]) -> tuple[str, str]:
    try:
        arguments = json.dumps(whole_numbers(json.loads(function["arguments"])), sort_keys=True)
    except (ValueError, TypeError, RecursionError):
        arguments = str(function["arguments"])
    return str(function["name"]), arguments


def _conversation(row: Mapping[str, Any]) -> str:
    return json.dumps([row["messages"], row["tools"]], sort_keys=True)


def _among(answers: set[str], files: Iterable[str]) -> set[str]:
    """Those of the answers that a row of the files trains, whatever it asks."""
    found: set[str] = set()
    for file in files:
        for row in FileReader(Path(file), max_findings=1):
            found |= {key for message in row.messages if (key := _trained(message)) in answers and key is not None}
            if len(found) == len(answers):
                return found
    return found


def _trained(message: Message) -> str | None:
    return _key(as_object(message)) if message.trained else None
