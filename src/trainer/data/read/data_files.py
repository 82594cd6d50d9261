"""Data files: opened, taken apart into lines, and a wrong path refused in words."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO

from trainer.data.quoting import printable
from trainer.errors import DataError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SHOWN = 3  # files of a folder
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/|azureml:")
MAX_LINE_BYTES = 128 * 2**20


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end; `offset` is that of its first byte in the file, `whole` is False where it was cut."""

    number: int
    offset: int
    raw: bytes
    whole: bool = True

    @property
    def blank(self) -> bool:
        """True for a line that is no row."""
        return not self.raw.strip(b" \t\r")


@contextmanager
def opened(path: Path, expected: str = "a chat JSONL file") -> Iterator[BinaryIO]:
    """`path` opened for reading; whatever the operating system refuses becomes a `DataError`."""
    try:
        if path.is_dir():
            raise DataError(f"{_named(path)} is a directory, expected {expected}; {_advice(path, path)}")
        if path.exists() and not path.is_file():
            raise DataError(f"{_named(path)} is not a regular file, expected {expected}; save the rows in a file")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        if _ADDRESS.match(str(path)):
            found = "is an address, expected a file on this machine; fetch it with train or trainer data in a terminal"
            raise DataError(f"{printable(str(path).partition('?')[0])}: {found}") from None
        advice = _advice(path, path.parent)
        raise DataError(f"{_named(path)} does not exist, expected {expected}; {advice}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        text = f"{_named(path)} cannot be read ({reason}), expected {expected}; check its name and permissions"
        raise DataError(text) from error


def numbered_lines(file: BinaryIO, limit: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Every line of `file` from its start, blank ones too, without byte order mark and line end."""
    file.seek(0)
    offset = number = 0
    while raw := file.readline(limit):
        number += 1
        size = len(raw)
        whole = size < limit or raw.endswith(b"\n")
        size += 0 if whole else _skip_line(file, limit)
        skipped = len(BYTE_ORDER_MARK) if number == 1 and raw.startswith(BYTE_ORDER_MARK) else 0
        yield Line(number, offset + skipped, raw[skipped:].rstrip(b"\r\n"), whole)
        offset += size


def _skip_line(file: BinaryIO, limit: int) -> int:
    """Read on to the end of the line and tell how many bytes that were."""
    num_bytes = 0
    while raw := file.readline(limit):
        num_bytes += len(raw)
        if raw.endswith(b"\n"):
            break
    return num_bytes


def _named(path: Path) -> str:
    return f"{printable(str(path))}: the file"


def _advice(path: Path, folder: Path) -> str:
    """The file that was probably meant, or what rows the folder holds; and from where a relative path was followed."""
    below = "" if path.is_absolute() else f" (looked for below {printable(str(Path.cwd()))})"
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    except OSError:
        return f"check the path, the directory {printable(str(folder))} does not exist{below}"
    rows = [printable(str(folder / name)) for name in names if name.endswith(".jsonl")][:SHOWN]
    if path == folder and rows:
        return f"did you mean {rows[0]}?"
    stems = {Path(name).stem: name for name in names}  # endings are alike, whatever the file is
    if meant := get_close_matches(path.stem, stems, n=1):
        return f"did you mean {printable(str(folder / stems[meant[0]]))}?{below}"
    return f"check the path{', there is ' if rows else ''}{', '.join(rows)}{below}"
