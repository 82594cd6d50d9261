"""Lines of a run's two logs by level and text: the newest before a place, or those that have come since a cursor.

events.jsonl is what happened; output.log is what the process or the job printed.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from trainer.runs.files import record_of
from trainer.runs.growth import growth, lines_before
from trainer.runs.run import Level

LEVELS: tuple[Level, ...] = get_args(Level)
MOST = 200  # lines of a page
MOST_READ = 50_000  # lines that are looked through at a time, about half a second
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")  # ECMA-48 sequences and what is left


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a log; one that the process printed has neither time nor level."""

    time: str
    level: Level | None
    text: str


@dataclass(frozen=True, slots=True)
class LogFilter:
    """The lines that are wanted: of at least a level, with a text in any case. Printed lines have every level."""

    level: Level = "info"
    text: str = ""

    def wants(self, line: LogLine) -> bool:
        is_severe = line.level is None or LEVELS.index(line.level) >= LEVELS.index(self.level)
        return is_severe and self.text.casefold() in line.text.casefold()


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines in the order of the file, and the offset before which none was looked at; None at the beginning."""

    lines: list[LogLine]
    earlier: int | None
    num_read: int


def lines_up_to(path: Path, wanted: LogFilter, end: int | None = None, most_read: int = MOST_READ) -> LogPage:
    """The last wanted lines before the offset `end`, or of the file; a rare text is looked for in several pages."""
    parse, found, num_read = _parser(path), list[LogLine](), 0
    for offset, text in lines_before(path, end):
        num_read += 1
        if (line := parse(text)) is not None and wanted.wants(line):
            found.append(line)
        if len(found) >= MOST or num_read >= most_read:
            return LogPage(found[::-1], offset or None, num_read)
    return LogPage(found[::-1], None, num_read)


def lines_since(path: Path, wanted: LogFilter, cursor: str) -> tuple[list[LogLine], str, bool]:
    """Wanted lines since a cursor, the cursor after them, and True where the file has begun anew."""
    found, parse = growth(path, cursor), _parser(path)
    lines = [line for text in found.lines if (line := parse(text)) is not None and wanted.wants(line)]
    return lines, found.cursor, found.starts_over


def _parser(path: Path) -> Callable[[str], LogLine | None]:
    return _event if path.suffix == ".jsonl" else _printed


def _event(text: str) -> LogLine | None:
    """A line of events.jsonl; a damaged one is shown as it is."""
    if not text.strip():
        return None
    record = record_of(text)
    if record is None or not isinstance(record.get("message"), str):
        return LogLine("", "warning", f"damaged line: {_plain([text])}")
    level = record.get("level")
    return LogLine(str(record.get("created_at", "")), level if level in LEVELS else "info", _plain([record["message"]]))


def _printed(text: str) -> LogLine | None:
    """A printed line as it was last shown: progress writes one over and over."""
    shown = [part for part in text.rstrip("\r\n").split("\r") if part.strip()]
    return LogLine("", None, _plain(shown[-1:])) if shown else None


def _plain(texts: Iterable[str]) -> str:
    return _CONTROL.sub("", "".join(texts))
