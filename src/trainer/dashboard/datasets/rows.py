"""Rows of a file of any length: its lines are found once, and only those of a page are read."""

import json
import re
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from trainer.dashboard.datasets.files import DataSet
from trainer.data.read.data_files import MAX_LINE_BYTES, numbered_lines, opened
from trainer.data.read.row_view import ShownRow, as_row

PAGE_ROWS = 20
KEPT_FILES = 8
MAX_MATCHES = 1_000
ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


@dataclass(frozen=True, slots=True)
class RowOffsets:
    """Numbers and offsets of the lines that are not blank: 16 bytes a row."""

    numbers: "array[int]"
    offsets: "array[int]"

    def __len__(self) -> int:
        return len(self.numbers)


class RowReader:
    """Reads rows of files; where their lines are is kept for the files looked at last."""

    def __init__(self) -> None:
        self._lines: OrderedDict[tuple[str, int, int], RowOffsets] = OrderedDict()
        self._lock = Lock()

    def lines(self, file: DataSet) -> RowOffsets:
        """Numbers and offsets of the rows. Raises: DataError, OSError."""
        with self._lock:
            if (known := self._lines.get(file.state)) is None:
                known = self._lines[file.state] = _find_lines(file)
                while len(self._lines) > KEPT_FILES:
                    self._lines.popitem(last=False)
            return known

    def rows(self, file: DataSet, indices: Sequence[int]) -> list[ShownRow]:
        """The rows of these places in the file's order, from 0; those beyond its end are left out."""
        lines = self.lines(file)
        with opened(file.path) as opened_file:
            found = []
            for index in indices:
                if 0 <= index < len(lines):
                    opened_file.seek(lines.offsets[index])
                    found.append(as_row(opened_file.readline(MAX_LINE_BYTES), lines.numbers[index]))
        return found

    def row_at(self, file: DataSet, line: int) -> ShownRow | None:
        """The row of a line, None where there is none."""
        lines = self.lines(file)
        index = _index_of(lines, line)
        return None if index is None else self.rows(file, [index])[0]

    def indices(self, file: DataSet, wanted: Sequence[int]) -> list[int]:
        """The places of rows by their lines."""
        lines = self.lines(file)
        return [index for line in wanted if (index := _index_of(lines, line)) is not None]

    def search(self, file: DataSet, text: str) -> list[int]:
        """Places of the first rows that hold `text`, in any case, however its characters are written in JSON."""
        needle = json.dumps(text.lower(), ensure_ascii=False)[1:-1]  # with quotes as a row writes them
        found: list[int] = []
        with opened(file.path) as opened_file:
            rows = (line for line in numbered_lines(opened_file) if not line.blank)
            for index, line in enumerate(rows):
                if needle in _folded(line.raw):
                    found.append(index)
                    if len(found) == MAX_MATCHES:
                        break
        return found


def _find_lines(file: DataSet) -> RowOffsets:
    numbers, offsets = array("Q"), array("Q")
    with opened(file.path) as opened_file:
        for line in numbered_lines(opened_file):
            if not line.blank:
                numbers.append(line.number)
                offsets.append(line.offset)
    return RowOffsets(numbers, offsets)


def _index_of(lines: RowOffsets, line: int) -> int | None:
    index = bisect_left(lines.numbers, line)
    return index if index < len(lines) and lines.numbers[index] == line else None


def _folded(raw: bytes) -> str:
    """A line in lower case, its escaped characters as they are read."""
    text = raw.decode("utf-8", "replace")
    if "\\u" in text:
        text = ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # two halves are one character
    return text.lower()


@dataclass(frozen=True, slots=True)
class RowPage:
    """A page of rows among those that were asked for."""

    rows: list[ShownRow]
    number: int  # from 1
    num_pages: int
    num_found: int


def page_of(reader: RowReader, file: DataSet, number: int, wanted: Sequence[int] | None) -> RowPage:
    """A page of the whole file, or of the places in `wanted`."""
    num_found = len(reader.lines(file)) if wanted is None else len(wanted)
    num_pages = max(1, -(-num_found // PAGE_ROWS))
    number = min(max(number, 1), num_pages)
    places = range((number - 1) * PAGE_ROWS, min(number * PAGE_ROWS, num_found))
    indices = list(places) if wanted is None else [wanted[place] for place in places]
    return RowPage(reader.rows(file, indices), number, num_pages, num_found)
