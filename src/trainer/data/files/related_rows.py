"""Rows that must not be parted: whoever is trained on one of them knows the answer to another."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from trainer.data.conversations import Conversation
from trainer.data.rules.across_rows import fingerprints

Group = list[int]


def related_rows(rows: Sequence[Conversation]) -> list[Group]:
    """The rows, by index, in groups that must stay together.

    Together are rows that ask the same, white space aside, and rows that continue where another whole row ends, as in
    files that hold every turn of a conversation as a row of its own. A preference row ends with each of its answers.
    """
    seen = list(fingerprints(rows))
    ends = [[end.row for end in fingerprints(row.branches)] for row in rows]
    whole_rows = {end for of_row in ends for end in of_row}
    groups = _Groups(len(rows))
    for index, (row, print_) in enumerate(zip(rows, seen, strict=True)):
        for end in ends[index]:
            groups.join(index, end)
        if print_.has_prompt:
            groups.join(index, print_.prompt)
        for branch in row.branches:
            for beginning in fingerprints(_beginnings(branch)):
                if beginning.row in whole_rows:
                    groups.join(index, beginning.row)
    return groups.all()


def _beginnings(row: Conversation) -> Iterator[Conversation]:
    """The conversation up to each of its answers but the last."""
    for index, message in enumerate(row.messages[:-1]):
        if message.role == "assistant":
            yield replace(row, messages=row.messages[: index + 1])


class _Groups:
    """Indices that are joined by the keys they share."""

    def __init__(self, size: int) -> None:
        self._leader = list(range(size))
        self._first: dict[int, int] = {}

    def join(self, index: int, key: int) -> None:
        other = self._lead(self._first.setdefault(key, index))
        self._leader[self._lead(index)] = other

    def _lead(self, index: int) -> int:
        while self._leader[index] != index:
            self._leader[index] = index = self._leader[self._leader[index]]
        return index

    def all(self) -> list[Group]:
        groups: dict[int, Group] = defaultdict(list)
        for index in range(len(self._leader)):
            groups[self._lead(index)].append(index)
        return list(groups.values())
