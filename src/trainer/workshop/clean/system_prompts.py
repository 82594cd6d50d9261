"""Spellings of the same system prompt: counted, and the most frequent one found."""

from array import array
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from trainer.kinds import Method, learns_from_pairs
from trainer.workshop.clean.said import folded

MAX_CHARS = 32_000_000  # of all spellings; files of so many have a prompt for each row


class SystemSpellings:
    """Counts each spelling of the system prompts of a file."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._counts: list[int] = []
        self._rows, self._lines = array("I"), array("Q")
        self._num_chars = 0

    def add(self, line: int, row: dict[str, Any], method: Method) -> None:
        """Count the system prompt of a row, if it has one and all could be kept."""
        text = system_text(row, method)
        if text is None or self._num_chars > MAX_CHARS:
            return
        number = self._numbers.setdefault(text, len(self._numbers))
        if number == len(self._counts):
            self._counts.append(0)
            self._num_chars += len(text)
        self._counts[number] += 1
        self._rows.append(number)
        self._lines.append(line)

    def usual(self) -> dict[str, str]:
        """For each spelling that is not the most frequent one, that one; of equally frequent ones the first by text."""
        if self._num_chars > MAX_CHARS:
            return {}
        alike: defaultdict[str, list[str]] = defaultdict(list)
        for text in self._numbers:
            alike["".join(folded(text).split())].append(text)
        replaced: dict[str, str] = {}
        for texts in alike.values():
            best = min(texts, key=lambda text: (-self.count(text), text))
            replaced |= {text: best for text in texts if text != best}
        return replaced

    def count(self, text: str) -> int:
        """The number of rows with this spelling."""
        return self._counts[self._numbers[text]]

    def rows(self, texts: dict[str, str]) -> Iterator[tuple[int, str]]:
        """The lines that have one of `texts`, and which, in their order."""
        by_number = {self._numbers[text]: text for text in texts}
        return (
            (line, by_number[number])
            for line, number in zip(self._lines, self._rows, strict=True)
            if number in by_number
        )


def system_message(row: dict[str, Any], method: Method) -> dict[str, Any] | None:
    """The first message of a row, where it is a system prompt of text."""
    first: dict[str, Any] = (row["input"] if learns_from_pairs(method) else row)["messages"][0]
    return first if first["role"] in ("system", "developer") and isinstance(first["content"], str) else None


def system_text(row: dict[str, Any], method: Method) -> str | None:
    """The text of that message."""
    message = system_message(row, method)
    return None if message is None else message["content"]
