"""Rows that ask nearly the same and answer otherwise: questions by MinHash, answers by their words."""

import statistics
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from trainer.data.conversations import Conversation, Message
from trainer.workshop.clean.said import SaidRows, folded
from trainer.workshop.clean.similar import Comparison, Resemblance

ALIKE = 0.6  # of what two questions say beside their template
OTHERWISE = 0.5  # of the words of two answers
MAX_GROUP = 64  # rows of a group that are compared with one another; more are compared with the first ones


@dataclass(frozen=True, slots=True)
class OddAnswer:
    """A row's answer among those of rows that ask nearly the same.

    `agreement` is the share of words that it has in common with the median of these answers, `usual` the median
    agreement of the group, `other` the row that it has least in common with.
    """

    other: int
    agreement: float
    usual: float

    @property
    def strength(self) -> float:
        """From 0 to 1.3: more where the others agree, and some where nobody does."""
        return max(0.0, self.usual - self.agreement) + 0.3 * (1 - self.agreement)


def odd_answers(rows: Sequence[Conversation]) -> dict[int, OddAnswer]:
    """Rows, by number, whose answer has less than half of its words in common with those of their group."""
    answers = [frozenset(folded(_text(row.messages[-1])).split()) for row in rows]
    found = {}
    for group in _groups(_alike(rows), len(rows)):
        agreements = {row: _agreements(row, group, answers) for row in group}
        medians = {row: statistics.median(shared.values()) for row, shared in agreements.items()}
        usual = statistics.median(medians.values())
        for row, agreement in medians.items():
            if agreement < OTHERWISE:
                other = min(agreements[row], key=lambda one: (agreements[row][one], one))
                found[row] = OddAnswer(other, agreement, usual)
    return found


def _agreements(row: int, group: Sequence[int], answers: Sequence[frozenset[str]]) -> dict[int, float]:
    return {other: _jaccard(answers[row], answers[other]) for other in group[:MAX_GROUP] if other != row}


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one or other else 1.0


def _alike(rows: Sequence[Conversation]) -> Iterable[Resemblance]:
    """Rows whose prompts resemble an earlier one's: their last messages are made the same and compared away."""
    if len(rows) < 2:
        return []
    with closing(SaidRows()) as said:
        for row in rows:
            said.add(replace(row, messages=(*row.messages[:-1], Message("assistant", "answer"))))
        comparison = Comparison(said, ALIKE)
        numbers = np.arange(len(rows))
        comparison.learn_template(numbers, numbers[:0])
        return comparison.repeats(numbers)


def _groups(pairs: Iterable[Resemblance], count: int) -> list[list[int]]:
    """Rows that resemble one another, directly or by others between them."""
    first = list(range(count))

    def root(row: int) -> int:
        while first[row] != row:
            row = first[row]
        return row

    for pair in pairs:
        first[root(pair.row)] = root(pair.other)
    groups: dict[int, list[int]] = {}
    for row in range(count):
        groups.setdefault(root(row), []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def _text(message: Message) -> str:
    calls = [f"{call.name} {call.arguments}" for call in message.tool_calls]
    return " ".join([message.content or "", *calls])
