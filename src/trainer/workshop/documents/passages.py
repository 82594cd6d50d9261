"""Passages: the form in which every reader of a format hands over a document."""

from dataclasses import dataclass
from typing import Literal

Unit = Literal["page", "line", "paragraph"]


@dataclass(frozen=True, slots=True)
class Extent:
    """First and last page, line or paragraph, counted from 1."""

    unit: Unit
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.unit} {self.first}" if self.first == self.last else f"{self.unit}s {self.first}-{self.last}"

    def to(self, other: "Extent") -> "Extent":
        """From the start of this one to the end of another."""
        return Extent(self.unit, self.first, max(self.last, other.last))


@dataclass(frozen=True, slots=True)
class Passage:
    """A heading, paragraph, list, table or code block, as Markdown.

    `level` is that of a heading, else 0, and `title` its words. `whole` text is never cut. Where a text must be cut,
    each later part begins with `head`, such as the header of a table.
    """

    text: str
    extent: Extent | None = None
    level: int = 0
    title: str = ""
    whole: bool = False
    head: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """An object, a row or an operation: a chunk of its own, that is joined with nothing."""

    text: str
    place: str
    title: str = ""
    function: str = ""


Document = list[Passage | Record]
