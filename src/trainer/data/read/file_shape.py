"""Files that are not chat JSONL at all, recognised by their first bytes so that one finding says so."""

import re
from dataclasses import dataclass
from typing import Literal

from trainer.data.json_scanner import JsonProblem
from trainer.data.read.data_files import BYTE_ORDER_MARK
from trainer.data.strict_json import parse

HEAD_BYTES = 64 * 1024
ROW_KEYS = {"messages", "conversations", "instruction", "prompt", "preferred_output"}

_UTF_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_BINARY_MARKS = (
    (b"\x1f\x8b", "gzip-compressed", "unpack it with gunzip"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", "unpack it with unzstd"),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"PAR1", "a Parquet file", None),  # which can be converted
    (b"ARROW1", "an Arrow file", "export its rows as JSON Lines"),
)
_WORKBOOK = b"xl/"  # the folder inside the archive
_SCALAR = r"""(?:"(?:[^"\\]|\\.)*"|[-+.\deE]+|true|false|null)"""
_KEYS_OF_ROWS = "data|rows|examples|records|items|samples|instances|dataset|train"
WRAPPED_ROWS = re.compile(rf'\s*\{{\s*(?:"\w+"\s*:\s*{_SCALAR}\s*,\s*)*"(?:{_KEYS_OF_ROWS})"\s*:\s*(?=\[\s*[{{\[])')
_NAMED_DELIMITER = re.compile(r'"?sep=."?')  # Excel's own first line
_COLUMNS_OF_LISTS = ("messages", "conversations")
_CSV_HEADER = re.compile(r'"?[A-Za-z_][\w ]*"?(?:(?P<mark>[,;\t])"?[A-Za-z_][\w ]*"?)(?:(?P=mark)"?[A-Za-z_][\w ]*"?)*')
_ROW_START = re.compile(rf'\{{\s*"(?:{"|".join(sorted(ROW_KEYS))}|tools|input)"')


Layout = Literal["array", "objects", "wrapped", "table"]


@dataclass(frozen=True, slots=True)
class Shape:
    """Format of a file that is no chat JSONL, with the `code` of its rule; `line` where the rule names one.

    `fix` is what to do where it cannot be converted; `layout` is that of a text.
    """

    code: str
    found: str
    line: int | None = None
    fix: str | None = None
    layout: Layout | None = None


def recognise(head: bytes, whole: bool) -> Shape | None:
    """Recognize another format than JSONL by `head`, the file's first bytes; `whole` when they are all of it."""
    if encoding := _wide_encoding(head):
        return Shape("ENCODING", f"is {encoding} from byte offset 0 on", line=1)
    for mark, name, fix in _BINARY_MARKS:
        if head.startswith(mark):
            if name.startswith("a zip") and _WORKBOOK in head:
                return Shape("FORMAT", "is an Excel workbook")  # which can be converted
            return Shape("FORMAT", f"is {name}", fix=fix)
    return shape_of_text(head.removeprefix(BYTE_ORDER_MARK).decode(errors="replace"), whole)


def shape_of_text(head: str, whole: bool) -> Shape | None:
    """Recognize another format than JSONL by `head`, the first characters of a text."""
    lines = [line for line in map(str.strip, head.split("\n")) if line]
    if not lines:
        return None
    if WRAPPED_ROWS.match(head):
        return Shape("FORMAT", "is one JSON object that holds the rows", layout="wrapped")
    if lines[0][0] in "[{":
        return _shape_of_json(lines, whole)
    first = lines[0].strip('"')
    if first in _COLUMNS_OF_LISTS or _NAMED_DELIMITER.fullmatch(lines[0]) or _CSV_HEADER.fullmatch(lines[0]):
        return Shape("FORMAT", "is a table (CSV)", layout="table")
    return None


def _wide_encoding(head: bytes) -> str | None:
    for mark, name in _UTF_MARKS:
        if head.startswith(mark):
            return name
    sample = head[:64]
    zeros = {position % 2 for position, byte in enumerate(sample) if byte == 0}
    # ASCII text as UTF-16 has a zero in every other byte, and UTF-8 text has none.
    return "UTF-16" if len(zeros) == 1 and sample.count(0) >= max(2, len(sample) // 3) else None


def _shape_of_json(lines: list[str], whole: bool) -> Shape | None:
    """Distinguish a value spread over many lines from a damaged first row: its neighbors are no rows."""
    first, others = lines[0], lines[1:]
    is_spread = _goes_on(first) and not any(map(_is_row, others))
    if first == "[" or (first[0] == "[" and (is_spread if others else _holds_rows(first, whole))):
        return Shape("FORMAT", "is one JSON array", layout="array")
    if first[0] == "{" and others and is_spread and not _ROW_START.match(others[0]):
        return Shape("FORMAT", "is pretty-printed JSON, spread over many lines", layout="objects")
    return None


def _goes_on(line: str) -> bool:
    """True if a value begins on `line` and the line ends between two of its words."""
    value = parse(line)
    return isinstance(value, JsonProblem) and value.truncated and value.found != "ends inside a string"


def _holds_rows(line: str, whole: bool) -> bool:
    """True if a file's only line is a list of objects; one whose end is not seen counts as such."""
    value = parse(line)
    return not whole or isinstance(value, JsonProblem) or all(isinstance(item, dict) for item in value)


def _is_row(line: str) -> bool:
    value = parse(line)
    return isinstance(value, dict) and not ROW_KEYS.isdisjoint(value)
