"""Rows copied from file to file, byte for byte."""

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from trainer.data.read.data_files import numbered_lines, opened

_CHUNK_BYTES = 1 << 20


def copy_rows(source: Path, target_of: Callable[[int], BinaryIO | None]) -> int:
    """Copy the row in each line of `source` to the file that `target_of(line)` names; the number of blank lines.

    A row keeps its bytes and its line end; the last one is given a line end where it has none. Blank lines and a byte
    order mark are no part of a row.
    """
    with opened(source) as file:
        lines = [(line.number, line.offset, line.blank) for line in numbered_lines(file)]
        end = file.seek(0, os.SEEK_END)
        for (number, start, blank), (_, stop, _) in pairwise([*lines, (0, end, True)]):
            if not blank and (target := target_of(number)) is not None:
                _copy(file, start, stop, target)
    return sum(blank for _, _, blank in lines)


def _copy(file: BinaryIO, start: int, stop: int, target: BinaryIO) -> None:
    file.seek(start)
    chunk = b""
    for at in range(start, stop, _CHUNK_BYTES):
        chunk = file.read(min(_CHUNK_BYTES, stop - at))
        target.write(chunk)
    if not chunk.endswith(b"\n"):
        target.write(b"\n")
