"""Files that grow by lines, read by what is new in them or from their end: a long log is never read twice."""

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

BLOCK_BYTES = 64 * 1024


class NewLines:
    """The lines that a file has got since it was last asked; a line that is still being written waits."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset = path, 0

    def read(self) -> Iterator[str]:
        try:
            file = self.path.open("rb")
        except OSError:
            return
        with file:
            if os.fstat(file.fileno()).st_size < self.offset:
                self.offset = 0  # a resumed run begins its measurements anew
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                yield line.decode(errors="replace")

    def skip(self) -> None:
        """Take what is there now for known."""
        try:
            self.offset = self.path.stat().st_size
        except OSError:
            self.offset = 0


def from_the_end(path: Path) -> Iterator[str]:
    """The whole lines of a file, the last one first."""
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        end, rest, is_torn = file.seek(0, os.SEEK_END), b"", True  # what follows the last line break is no line yet
        while end > 0:
            start = max(0, end - BLOCK_BYTES)
            file.seek(start)
            first, *lines = (file.read(end - start) + rest).split(b"\n")
            for line in reversed(lines):
                if not is_torn:
                    yield line.decode(errors="replace")
                is_torn = False
            end, rest = start, first
        if not is_torn:
            yield rest.decode(errors="replace")


def last_records(path: Path, count: int) -> list[dict[str, Any]]:
    """The last objects of a JSON-lines file, in its order."""
    found = (record for line in from_the_end(path) if (record := record_of(line)) is not None)
    return list(islice(found, count))[::-1]


def record_of(line: str) -> dict[str, Any] | None:
    """The object of a line; None where it holds none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
