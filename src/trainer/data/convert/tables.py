"""Read tables: Parquet, the form of most public data sets, and CSV or TSV by the names of their header."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from trainer.data.json_scanner import JsonProblem
from trainer.data.quoting import printable, quoted
from trainer.data.read.data_files import MAX_LINE_BYTES
from trainer.errors import DataError
from trainer.extras import need

MAGIC = b"PAR1"
_BATCH_ROWS = 1024
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
NUM_TRIED_RECORDS = 20
_NAMED = re.compile(r'"?sep=([^\w"\s]|\t)"?\r?\n')
_MAX_NAMED_CHARS = 16
Record = tuple[int, dict[str, str] | JsonProblem]


def read_table(path: Path, table: TextIO, is_known: Callable[[Sequence[str]], bool]) -> Iterator[Record]:
    """The records of `table` below its header, each with the line it begins in.

    Raises: DataError, when no delimiter makes columns, or two have one name.
    """
    cells = _cells(table, _delimiter(path, table, is_known))
    line, header = next(cells, (1, []))
    names = column_names(path, line, [] if isinstance(header, JsonProblem) else header)
    return (_record(line, names, row) for line, row in cells)


def column_names(path: Path, line: int, header: Sequence[str]) -> list[str]:
    """The names of the columns. Raises: DataError, when two have one name."""
    names = [name.strip() for name in header]
    if repeated := [name for name, count in Counter(names).items() if name and count > 1]:
        raise DataError(
            f"{printable(str(path))}:{line}: has two columns named {quoted(repeated[0])}, expected a name of its own "
            "for each column; rename one"
        )
    return names


def _record(line: int, names: list[str], cells: list[str] | JsonProblem) -> Record:
    if isinstance(cells, JsonProblem):
        return line, cells
    if len(cells) != len(names):
        return line, _problem(f"has {len(cells)} cells", f"{len(names)}, as the header has")
    return line, dict(zip(names, cells, strict=True))


def _delimiter(path: Path, table: TextIO, is_known: Callable[[Sequence[str]], bool]) -> str:
    """The mark that gives known columns, else the most records as wide as the header, else the most columns."""

    def fit(mark: str) -> tuple[bool, int, int]:
        tried = [row for _, row in islice(_cells(table, mark), NUM_TRIED_RECORDS + 1)]
        if not tried or isinstance(tried[0], JsonProblem):
            return False, 0, 0
        width = len(tried[0])
        num_equal = sum(not isinstance(row, JsonProblem) and len(row) == width for row in tried)
        return is_known(tried[0]), num_equal if width > 1 else 0, width

    if named := _named_delimiter(table):
        return named
    best = max(DELIMITERS, key=fit)
    known, _, width = fit(best)
    if width < 2 and not known:
        raise DataError(
            f"{printable(str(path))}:1: holds neither JSON nor columns parted by {', '.join(DELIMITERS.values())}, "
            "expected rows with a question and an answer; export the data as CSV or JSON"
        )
    return best


def _named_delimiter(table: TextIO) -> str | None:
    """The delimiter that Excel names in a first line of its own, behind which `table` then stands."""
    table.seek(0)
    named = _NAMED.fullmatch(table.readline(_MAX_NAMED_CHARS))
    return named[1] if named else None


def _cells(table: TextIO, delimiter: str) -> Iterator[tuple[int, list[str] | JsonProblem]]:
    """The cells of each record that is not blank, from the start of the file."""
    num_before = 1 if _named_delimiter(table) else table.seek(0)
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader(table, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + num_before + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, _problem(f"cannot be read ({error})", 'quotes that close, "" inside')
            continue
        if any("\0" in cell for cell in cells):
            yield line, _problem("holds a NUL character", "text")
        elif any(cell.strip() for cell in cells):
            yield line, cells


def _problem(found: str, accepted: str) -> JsonProblem:
    return JsonProblem("CSV", 0, found, accepted)


def read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row with its number, from 1.

    Raises: DataError, when the file is damaged; MissingDependency, without pyarrow.
    """
    need("reading Parquet", "pyarrow", extra="local")
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        found = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{printable(str(path))}: cannot be read as Parquet ({found}), expected a whole file"
        ) from error
