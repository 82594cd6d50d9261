"""A file of another layout as chat JSONL: every row is carried whole, or named with the reason why not."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from trainer.data.convert.source import SourceRow, SourceRows, open_source
from trainer.data.files.new_files import new_files
from trainer.data.json_scanner import JsonProblem
from trainer.data.layouts.columns import Columns, columns_of
from trainer.data.layouts.messages import NotConvertible, Row
from trainer.data.layouts.preferences import pair_of
from trainer.data.layouts.shapes import Shape, convert_row, shape_of, with_system
from trainer.data.layouts.thoughts import without_thoughts
from trainer.data.quoting import printable, quoted
from trainer.data.rules.findings import Finding, FindingList
from trainer.data.rules.preferences import check_preference
from trainer.data.rules.row import check_row
from trainer.data.rules.rule import Backend
from trainer.data.rules.tools import ToolLists
from trainer.errors import DataError
from trainer.kinds import Method, learns_from_pairs


class Skipped(NamedTuple):
    """A row that no chat row could be made of."""

    place: str
    reason: str


@dataclass(slots=True)
class Conversion:
    """Result of a conversion; `dropped` counts rows with a value under a key that a chat row has no place for."""

    output: Path
    encoding: str | None
    layout: str
    num_read: int = 0
    num_written: int = 0
    num_given_system: int = 0
    num_without_thoughts: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    shapes: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)


def default_output(source: Path, method: Method = "sft") -> Path:
    """Default file for the rows of `source`: beside it."""
    return source.with_suffix(".pairs.jsonl" if learns_from_pairs(method) else ".chat.jsonl")


def first_row(source: Path, columns: Columns | None = None) -> tuple[str, Row | None]:
    """Layout of `source` in words, and its first row; None where that is no object.

    Raises: DataError, when it holds nothing that could be rows.
    """
    with open_source(source, None, lambda names: _has_columns(names, columns)) as found:
        row = next(iter(found.rows), None)
    return found.layout, row.value if row is not None and isinstance(row.value, dict) else None


def convert_file(
    source: Path,
    output: Path | None = None,
    *,
    columns: Columns | None = None,
    system: str | None = None,
    encoding: str | None = None,
    skip_bad: bool = False,
    force: bool = False,
    method: Method = "sft",
    thoughts: bool = True,
) -> Conversion:
    """Write the rows of `source` as chat JSONL, or as preference rows; each that is written passes the rules of a row.

    `system` becomes the system prompt of rows that have none. Without `thoughts` those of answers are left out.

    Raises: DataError, when `source` cannot be read, a row of it cannot be converted (with `skip_bad`: no row can), or
    `output` exists (unless `force`); nothing is written then.
    """
    output = output or default_output(source, method)
    with open_source(source, encoding, lambda names: _has_columns(names, columns), skip_bad=skip_bad) as rows:
        conversion = Conversion(output, rows.encoding, rows.layout)
        with new_files([output], [source], force=force) as (file,):
            for line in _converted(source, rows, columns, system, conversion, method, thoughts):
                file.write(line)
            _refuse_skipped(source, conversion, skip_bad)
    return conversion


def _has_columns(names: Sequence[str], columns: Columns | None) -> bool:
    stripped = {name.strip() for name in names}
    try:
        needed = columns_of([name.strip() for name in names], columns).needed
    except NotConvertible:
        return {"instruction", "output"} <= stripped or shape_of(dict.fromkeys(stripped)) != "columns"
    return needed <= stripped


def _converted(
    source: Path,
    rows: SourceRows,
    columns: Columns | None,
    system: str | None,
    conversion: Conversion,
    method: Method,
    thoughts: bool,
) -> Iterator[bytes]:
    """The lines to write; `conversion` is kept up to date."""
    tool_lists = ToolLists()
    shape: Shape
    for row in rows.rows:
        conversion.num_read += 1
        dropped: Counter[str] = Counter()
        try:
            if learns_from_pairs(method):
                shape, made = "preference", [pair_of(_value(row), dropped)]
            else:
                shape, made = convert_row(_value(row), columns, dropped)
            said = made if thoughts else [without_thoughts(one) for one in made]
            given = [with_system(one, system) for one in said] if system else said
            lines = [_line(one, tool_lists) for one in given]
        except NotConvertible as error:
            conversion.skipped.append(Skipped(_row_place(source, row), str(error)))
            continue
        conversion.num_given_system += sum(one is not before for one, before in zip(given, said, strict=True))
        conversion.num_without_thoughts += sum(one != before for one, before in zip(said, made, strict=True))
        conversion.shapes[shape] += 1
        conversion.dropped += dropped
        conversion.num_written += len(lines)
        yield from lines


def _row_place(source: Path, row: SourceRow) -> str:
    column = f":{row.value.column}" if isinstance(row.value, JsonProblem) and row.value.column else ""
    return f"{printable(str(source))}:{row.line}{column}"


def _value(row: SourceRow) -> Row:
    """The row as an object; a list of messages stands for a conversation."""
    value = row.value
    if isinstance(value, JsonProblem):
        raise NotConvertible(f"{value.code}: the row {value.found}, expected {value.accepted}")
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return {"messages": value}
    if not isinstance(value, dict):
        raise NotConvertible(f"ROW: the row is {quoted(value)}, expected an object")
    return value


def _line(row: Row, tool_lists: ToolLists) -> bytes:
    """The row as it is written. One that would only be an error of the new file is refused: fix it in the old one."""
    kind = "preference" if "input" in row else "chat"
    if error := _error(row, tool_lists):
        found = f"{error.code}: as a {kind} row {error.where} {error.found}"
        raise NotConvertible(f"{found}, expected {error.accepted}; {error.fix}")
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        reason = "ENCODING: the row holds what is no character, expected text; write it anew"
        raise NotConvertible(reason) from None
    except TypeError as error:  # dates and bytes, which Parquet has and JSON has not
        raise NotConvertible(f"JSON: the row holds a value that JSON has not ({error}), expected text") from None


def _error(row: Row, tool_lists: ToolLists) -> Finding | None:
    """The first error of a row that no backend takes: only the services take images, and only the others thoughts."""
    backends: tuple[Backend, ...] = ("openai", "local")
    first = None
    for backend in backends:
        findings = FindingList("", backend)
        (check_preference if "input" in row else check_row)(row, tool_lists, findings)
        error = next((finding for finding in findings.findings if finding.severity == "error"), None)
        if error is None:
            return None
        first = first or error
    return first


def _refuse_skipped(source: Path, conversion: Conversion, skip_bad: bool) -> None:
    """Raises: DataError, with every reason; a reason that all rows share stands there once."""
    name, skipped = printable(str(source)), conversion.skipped
    if not conversion.num_read:
        raise DataError(f"{name}: holds no rows, expected some below its first line; check the file")
    if not skipped or (skip_bad and conversion.num_written):
        return
    reasons = {row.reason for row in skipped}
    lines = [f"{row.place}: {row.reason}" for row in skipped]
    if conversion.num_written:
        found = f"{len(skipped):,} of {conversion.num_read:,} rows cannot be converted, expected all"
        raise DataError(f"{name}: {found}; fix them, or leave them out with --skip-bad", *lines)
    if len(reasons) == 1 and len(skipped) > 1:
        lines = [f"{name}: each of {conversion.num_read:,} rows {reasons.pop()}"]
    raise DataError(f"{name}: no row can be converted, expected one at least; nothing was written", *lines)
