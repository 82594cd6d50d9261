"""Growth of a log by a cursor that each reader keeps, so that nobody gets a long history twice.

A cursor is a place between two lines and a digest of the bytes before it. A resumed run replaces its measurements:
a reader whose lines are no longer in the file gets all of them anew.
"""

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

TAIL_BYTES = 256  # before a cursor, which its digest covers
MOST_BYTES = 4 * 1024 * 1024  # of lines at a time
BLOCK_BYTES = 64 * 1024
LONGEST_DIGITS = 15


@dataclass(frozen=True, slots=True)
class Growth:
    """Whole lines since a cursor, and the cursor after them.

    With `starts_over` they are the first lines of the file, and the reader forgets what it had.
    """

    lines: list[str]
    cursor: str
    starts_over: bool


def growth(path: Path, cursor: str = "", most_bytes: int = MOST_BYTES) -> Growth:
    """Lines since `cursor`, or from the beginning where it is empty or of another content.

    Once they come to `most_bytes` the rest waits for the next call; none are left where there are no lines.
    """
    try:
        file = path.open("rb")
    except OSError:
        return Growth([], "", bool(cursor))
    with file:
        start = _offset(file, cursor)
        file.seek(start or 0)
        lines, end = list[str](), start or 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            end += len(line)
            lines.append(line.decode(errors="replace"))
            if end - (start or 0) >= most_bytes:
                break
        return Growth(lines, _cursor(file, end), start is None)


def end_cursor(path: Path) -> str:
    """Cursor after the last whole line; empty where there is no file."""
    try:
        file = path.open("rb")
    except OSError:
        return ""
    with file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - BLOCK_BYTES)
            file.seek(start)
            if (found := file.read(end - start).rfind(b"\n")) >= 0:
                return _cursor(file, start + found + 1)
            end = start
        return _cursor(file, 0)


def lines_before(path: Path, end: int | None = None) -> Iterator[tuple[int, str]]:
    """Offset and text of each whole line before the offset `end`, or in the file, the last one first."""
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        size = file.seek(0, os.SEEK_END)
        start = stop = size if end is None else min(end, size)
        rest, is_torn = b"", True  # what follows the last line break is no line yet
        while start > 0:
            block_end, start = start, max(0, start - BLOCK_BYTES)
            file.seek(start)
            first, *lines = (file.read(block_end - start) + rest).split(b"\n")
            for line in reversed(lines):
                stop -= len(line)
                if not is_torn:
                    yield stop, line.decode(errors="replace")
                is_torn, stop = False, stop - 1
            rest = first
        if not is_torn:
            yield 0, rest.decode(errors="replace")


def _cursor(file: IO[bytes], end: int) -> str:
    return f"{end}-{_digest(file, end):08x}"


def _digest(file: IO[bytes], end: int) -> int:
    start = max(0, end - TAIL_BYTES)
    file.seek(start)
    return zlib.crc32(file.read(end - start))


def _offset(file: IO[bytes], cursor: str) -> int | None:
    """Place of a cursor; None where the file does not hold what was before it."""
    digits, _, digest = cursor.partition("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= LONGEST_DIGITS):
        return None
    end = int(digits)
    is_there = end <= os.fstat(file.fileno()).st_size and f"{_digest(file, end):08x}" == digest
    return end if is_there else None
