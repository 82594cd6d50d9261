"""The rows of a file in any layout that is read: JSON Lines, an array, spread-out objects, a table, Excel, Parquet."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from trainer.data.convert.encoding import find_encoding
from trainer.data.convert.tables import MAGIC, read_parquet, read_table
from trainer.data.convert.workbooks import is_workbook, read_workbook
from trainer.data.json_scanner import JsonProblem, find_problem
from trainer.data.quoting import printable, quoted
from trainer.data.read.data_files import opened
from trainer.data.read.file_shape import HEAD_BYTES, WRAPPED_ROWS, shape_of_text
from trainer.data.strict_json import parse
from trainer.errors import ConfigError, DataError

HEAD_CHARS = 1 << 16
_ERRORS = "surrogateescape"  # what cannot be read at all is refused by `find_encoding`
_REST_OF_OBJECT = re.compile(r'\s*(?:,\s*".*)?\}\s*', re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")
# Finds where a value ends; what a number is, and whether keys repeat, is left to the strict parser.
_DECODER = json.JSONDecoder(parse_int=len, parse_float=len)


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row as it was read, or why it could not be; `line` is where it begins, or where the mistake is."""

    line: int
    value: Any | JsonProblem


@dataclass(frozen=True, slots=True)
class SourceRows:
    """A file whose layout is known, in words; `rows` are read while they are taken. Only a text has an encoding."""

    layout: str
    rows: Iterator[SourceRow]
    encoding: str | None = None


@contextmanager
def open_source(
    path: Path, encoding: str | None, is_known: Callable[[Sequence[str]], bool], *, skip_bad: bool = False
) -> Iterator[SourceRows]:
    """The rows of `path`. `is_known` tells whether a table has the columns it needs.

    With `skip_bad` a byte that is no character of a UTF-8 file is read as a lone surrogate; no row is written with one.

    Raises: DataError, when it holds nothing that could be rows.
    """
    with opened(path, "a file of rows (JSON, CSV, TSV, Excel or Parquet)") as file:
        head = file.read(HEAD_BYTES)
    for layout, is_it, read in (
        ("a Parquet file", head.startswith(MAGIC), read_parquet),
        ("an Excel workbook", is_workbook(head), read_workbook),
    ):
        if is_it and encoding is not None:
            raise ConfigError(f"--encoding: is given for {layout}, expected one for text only; remove it")
        if is_it:
            yield SourceRows(layout, (SourceRow(*row) for row in read(path)))
            return
    codec = find_encoding(path, encoding, skip_bad=skip_bad)
    with _open_text(path, codec, is_known) as source:
        yield source


@contextmanager
def _open_text(path: Path, codec: str, is_known: Callable[[Sequence[str]], bool]) -> Iterator[SourceRows]:
    shown = codec.removesuffix("-sig")
    with path.open(encoding=codec, errors=_ERRORS, newline="\n") as text:
        head = text.read(HEAD_CHARS)
        shape = shape_of_text(head, whole=len(head) < HEAD_CHARS)
        text.seek(0)
        if not head.strip():
            raise DataError(f"{printable(str(path))}: the file holds no text, expected rows; check the path")
        if shape and shape.layout == "wrapped" and (begin := WRAPPED_ROWS.match(whole := text.read())):
            yield SourceRows("one JSON object that holds the rows", _values(whole, begin.end()), shown)
        elif shape and shape.layout in ("array", "objects"):
            layout = "one JSON array" if shape.layout == "array" else "JSON objects over many lines"
            yield SourceRows(layout, _values(text.read()), shown)
        elif head.lstrip()[0] in "[{":
            yield SourceRows("JSON Lines", _lines(text), shown)
        else:
            with path.open(encoding=codec, errors=_ERRORS, newline="") as table:
                yield SourceRows("a table", (SourceRow(*row) for row in read_table(path, table, is_known)), shown)


def _lines(text: TextIO) -> Iterator[SourceRow]:
    for number, line in enumerate(text, start=1):
        if stripped := line.strip(" \t\r\n"):
            yield SourceRow(number, parse(stripped))


def _values(text: str, begin: int = 0) -> Iterator[SourceRow]:
    """The items of an array, or objects one after the other; after broken syntax nothing more can be read.

    From `begin` on, an array may stand in an object, whose other values are no rows.
    """
    at = _skip(text, begin)
    in_array = text[at] == "["
    at = _skip(text, at + 1) if in_array else at
    line, counted = 1, 0
    while at < len(text) and not (in_array and text[at] == "]"):
        line, counted = line + text.count("\n", counted, at), at
        end = _end_of_value(text, at)
        value = parse(text[at:end]) if end else _broken(text[at:])
        yield _row(text, at, line, value)
        if end is None:
            return
        at = _skip(text, end)
        if in_array and text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif in_array and text[at : at + 1] != "]":
            found = f"holds {quoted(text[at])}" if at < len(text) else "ends"
            problem = JsonProblem("JSON", 1, f"{found} after an item of the array", "',' or ']'")
            yield _row(text, at, line + text.count("\n", counted, at), problem)
            return
    if begin and _REST_OF_OBJECT.fullmatch(text, at + 1):
        return
    if in_array and (at := _skip(text, at + 1)) < len(text):
        problem = JsonProblem("JSON", 1, "continues after the end of the array", "one array")
        yield _row(text, at, line + text.count("\n", counted, at), problem)


def _row(text: str, at: int, line: int, value: Any | JsonProblem) -> SourceRow:
    """The value that begins at `at` in `line`; a problem is given the line and column that an editor shows."""
    if not isinstance(value, JsonProblem):
        return SourceRow(line, value)
    there = at + value.column - 1
    column = there - text.rfind("\n", 0, there)
    return SourceRow(line + text.count("\n", at, there), JsonProblem(value.code, column, value.found, value.accepted))


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _end_of_value(text: str, start: int) -> int | None:
    try:
        return _DECODER.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return None


def _broken(rest: str) -> JsonProblem:
    return find_problem(rest) or JsonProblem("JSON", 1, "cannot be read as JSON", "a JSON value")
