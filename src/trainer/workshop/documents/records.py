"""Readers of data: the objects of JSON and JSON Lines, and the rows of tables."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NoReturn

from trainer.data.json_scanner import JsonProblem
from trainer.data.quoting import printable
from trainer.data.read.data_files import MAX_LINE_BYTES
from trainer.data.strict_json import parse
from trainer.errors import DataError
from trainer.workshop.documents.openapi import is_openapi, read_openapi
from trainer.workshop.documents.passages import Document, Record

_NAMES = ("title", "name", "term", "heading", "subject", "headline", "question")  # of what an object is called by
_MOST_TITLE = 120
_DELIMITERS = ",;\t|"
_NUM_TRIED = 20


def read_json(text: str, source: str) -> Document:
    """Each object of the lists in a JSON value, and what stands beside them; the operations of an OpenAPI file.

    Raises: DataError, with the first mistake.
    """
    value = _parsed(text)
    if isinstance(value, JsonProblem):
        before = text[: value.column - 1]
        raise DataError(_problem(source, before.count("\n") + 1, value, len(before) - before.rfind("\n")))
    return read_openapi(value, source) if is_openapi(value) else list(_objects(value, ""))


def read_json_lines(text: str, source: str) -> Document:
    """The value of each line. Raises: DataError, with every line that is not JSON."""
    found: Document = []
    problems = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        value = _parsed(line)
        if isinstance(value, JsonProblem):
            problems.append(_problem(source, number, value, value.column))
        else:
            found += _record(value, f"line {number}")
    if problems:
        raise DataError(*problems)
    return found


def _parsed(text: str) -> Any | JsonProblem:
    """The value of a text, of numbers of any size: those of a document are read and not computed with."""
    value = parse(text)
    if isinstance(value, JsonProblem) and value.code == "NUMBER":
        try:
            found = json.loads(text, object_pairs_hook=_unique, parse_float=_real, parse_constant=_refuse)
            json.dumps(found, ensure_ascii=False).encode()  # fails for half of a surrogate pair
            return found
        except (ValueError, RecursionError):
            return value
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises: ValueError, for a key that stands twice."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError
    return fields


def _real(digits: str) -> float | str:
    """The number, as its text where a float cannot hold it."""
    return digits if math.isinf(value := float(digits)) else value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def read_table(text: str, source: str) -> Document:
    """The rows below the header, numbered as in a spreadsheet: the header is row 1.

    Raises: DataError, with every row whose quotes do not close.
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader(io.StringIO(text), delimiter=_delimiter(text), strict=True)
    rows: list[list[str]] = []
    while True:
        line = reader.line_num + 1
        try:
            rows.append(next(reader))
        except StopIteration:
            return list(table_records(rows, ""))
        except csv.Error as error:
            raise DataError(
                f"{printable(source)}:{line}: cannot be read as a table ({error}), "
                'expected quotes that close, and "" inside; correct the row'
            ) from None


def table_records(rows: Sequence[Sequence[Any]], sheet: str) -> Iterator[Record]:
    """Records of rows, the first with a cell being the header; `sheet` stands before the number of the row."""
    header: list[str] | None = None
    last: Record | None = None
    for number, row in enumerate(rows, start=1):
        cells = [as_text(cell).strip() for cell in row]
        if not any(cells):
            continue
        place = f"{sheet}row {number}"
        if header is None:
            header = cells
            last = Record("\n".join(filter(None, cells)), place)
            continue
        last = None
        names = [*header, *[""] * (len(cells) - len(header))]
        yield from _record(_named(names, cells), place)
    if last:  # a table of a header alone
        yield last


def _named(names: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """Cells by their names; those of columns with one name, or without, in one text."""
    found: dict[str, str] = {}
    for name, cell in zip(names, cells, strict=False):
        if cell:
            found[name] = f"{found[name]}\n{cell}" if name in found else cell
    return found


def _delimiter(text: str) -> str:
    """The mark that makes the most of the first rows as wide as the header; the comma for a single column."""

    def fit(mark: str) -> tuple[int, int]:
        rows = csv.reader(io.StringIO(text), delimiter=mark)
        try:
            widths = [len(row) for row in islice(rows, _NUM_TRIED) if row]
        except csv.Error:
            return 0, 0
        return (widths.count(widths[0]), widths[0]) if widths and widths[0] > 1 else (0, 0)

    return max(_DELIMITERS, key=fit)


def _objects(value: Any, place: str) -> Iterator[Record]:
    """An object for each item of a list; those of lists within an object, and the rest of it."""
    if isinstance(value, list):
        for number, item in enumerate(value, start=1):
            yield from _record(item, f"{place}{', ' if place else ''}item {number}")
        return
    if not isinstance(value, dict):
        yield from _record(value, place)
        return
    lists = {key: inner for key, inner in value.items() if _is_table(inner)}
    yield from _record({key: inner for key, inner in value.items() if key not in lists}, place)
    for key, inner in lists.items():
        yield from _objects(inner, f"{place}{' > ' if place else ''}{key}")


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _record(value: Any, place: str) -> Iterator[Record]:
    """The value as a record, if it holds anything."""
    if text := "\n".join(_lines(value)).strip():
        yield Record(text, place, _title(value))


def _title(value: Any) -> str:
    if not isinstance(value, Mapping):
        return ""
    by_name = {str(key).strip().lower(): inner for key, inner in value.items()}
    texts = (by_name[name] for name in _NAMES if isinstance(by_name.get(name), str))
    return next((text.strip() for text in texts if 0 < len(text.strip()) <= _MOST_TITLE and "\n" not in text), "")


def _lines(value: Any, indent: str = "") -> Iterator[str]:
    """Lines as YAML has them, without its quotes; what is empty is no line."""
    if isinstance(value, Mapping):
        items = [(f"{key}:" if key else "", inner) for key, inner in value.items()]
    elif isinstance(value, list):
        items = [("-", inner) for inner in value]
    else:
        yield from (f"{indent}{line}" for line in as_text(value).split("\n"))
        return
    for mark, inner in items:
        below = list(_lines(inner, f"{indent}  "))
        if not any(line.strip() for line in below):
            continue
        is_text = not isinstance(inner, Mapping | list)
        if is_text and (len(below) == 1 or not indent):  # the lines of a long text keep their own indentation
            yield f"{indent}{mark} {as_text(inner)}".rstrip() if mark else f"{indent}{as_text(inner)}"
            continue
        yield f"{indent}{mark}"
        yield from below


def as_text(value: Any) -> str:
    """A cell or a value in words."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
        case _:
            return str(value)


def _problem(source: str, line: int, problem: JsonProblem, column: int) -> str:
    found = f"{problem.found}, expected {problem.accepted}"
    return f"{printable(source)}:{line}: at column {column} {found}; {problem.fix or 'correct it'}"
