"""Rows that must not be parted: whoever is trained on one of them knows the answer to another."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from trainer.data.across_checks import said
from trainer.data.conversations import Conversation, Message

Group = list[int]


def related_rows(rows: Sequence[Conversation]) -> list[Group]:
    """The rows, by index, in groups that must stay together.

    Together are rows that ask the same, white space aside, and rows that go on where another whole row ends, as in
    files that hold every turn of a conversation as a row of its own.
    """
    texts = [_digest(row.messages, row) for row in rows]
    whole_rows = set(texts)
    groups = _Groups(len(rows))
    for index, (row, text) in enumerate(zip(rows, texts, strict=True)):
        groups.join(index, text)
        if len(row.messages) > 1:
            groups.join(index, b"asks" + _digest(row.messages[:-1], row))
        for beginning in _beginnings(row):
            if (text := _digest(beginning, row)) in whole_rows:
                groups.join(index, text)
    return groups.all()


def _digest(messages: Sequence[Message], row: Conversation) -> bytes:
    """Of what `messages` say with the tools of `row`, whatever their white space and weights."""
    words = " ".join([*map(said, messages), json.dumps(row.tools)]).split()
    return blake2b(" ".join(words).encode(), digest_size=16).digest()


def _beginnings(row: Conversation) -> Iterator[Sequence[Message]]:
    """The conversation up to each of its answers but the last."""
    for index, message in enumerate(row.messages[:-1]):
        if message.role == "assistant":
            yield row.messages[: index + 1]


class _Groups:
    """Indices that are joined by the keys they share."""

    def __init__(self, size: int) -> None:
        self._leader = list(range(size))
        self._first: dict[bytes, int] = {}

    def join(self, index: int, key: bytes) -> None:
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
