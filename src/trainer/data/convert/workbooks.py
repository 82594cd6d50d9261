"""Rows of an Excel workbook: those of its first sheet that holds any, by the names of their header."""

import zipfile
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

from trainer.data.convert.tables import column_names
from trainer.data.json_scanner import JsonProblem
from trainer.data.quoting import printable
from trainer.data.read.file_shape import recognise
from trainer.errors import DataError
from trainer.extras import need

MAX_UNPACKED_BYTES = 2**30  # a small archive can unpack to any size
MAX_ROWS, MAX_CELLS = 2**20, 50_000_000  # Excel's own bound, and what a sheet far to the right counts with its gaps


def is_workbook(head: bytes) -> bool:
    """True by the first bytes of a file."""
    shape = recognise(head, whole=False)
    return shape is not None and shape.found == "is an Excel workbook"


def read_workbook(path: Path) -> Iterator[tuple[int, dict[str, Any] | JsonProblem]]:
    """Each row below the header, with its number as Excel shows it; formulas are the values that Excel stored.

    Raises: DataError, when the file is damaged, too large, or no sheet holds rows; MissingDependency, without openpyxl.
    """
    need("reading Excel workbooks", "openpyxl", extra="workshop", otherwise="save the sheet as CSV")
    import openpyxl

    name = printable(str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            num_bytes = sum(member.file_size for member in archive.infolist())
        if num_bytes > MAX_UNPACKED_BYTES:
            found = f"unpacks to {num_bytes:,} bytes, expected at most {MAX_UNPACKED_BYTES:,}"
            raise DataError(f"{name}: the workbook {found}; save the sheet as CSV")
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            yield from _rows(path, workbook)
        finally:
            workbook.close()
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, SyntaxError) as error:
        raise DataError(
            f"{name}: cannot be read as an Excel workbook ({type(error).__name__}: {error}), expected a whole file; "
            "save the sheet as CSV"
        ) from error


def sheet_rows(sheet: Any) -> Iterator[tuple[Any, ...]]:
    """The values of each row of a sheet, without the empty ones at its end.

    Raises: ValueError, where a cell stands so far out that the gaps before it would fill the memory.
    """
    sheet.reset_dimensions()  # a wrong one would cut the rows, or fill each up to the last column that Excel has
    num_cells = 0
    for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
        num_cells += len(cells)
        if number > MAX_ROWS or num_cells > MAX_CELLS:
            raise ValueError(f"sheet {sheet.title} reaches beyond {MAX_ROWS:,} rows or {MAX_CELLS:,} cells")
        width = len(cells)
        while width and cells[width - 1] is None:
            width -= 1
        yield cells[:width]


def _rows(path: Path, workbook: Any) -> Iterator[tuple[int, dict[str, Any] | JsonProblem]]:
    for sheet in workbook.worksheets:
        rows = ((number, list(map(_cell, cells))) for number, cells in enumerate(sheet_rows(sheet), 1))
        filled = ((number, cells) for number, cells in rows if any(cell.strip() for cell in cells))
        line, header = next(filled, (0, []))
        if not header:
            continue
        while not header[-1].strip():
            header.pop()
        names = column_names(path, line, header)
        for number, cells in filled:
            if any(cell.strip() for cell in cells[len(names) :]):
                yield number, JsonProblem("CSV", 0, f"has {len(cells)} cells", f"{len(names)}, as the header has")
            else:
                yield number, dict(zip(names, cells + [""] * len(names), strict=False))
        return
    raise DataError(f"{printable(str(path))}: no sheet holds a row, expected a header and rows; check the file")


def _cell(value: object) -> str:
    """A cell as a person reads it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime) and value.time().isoformat() == "00:00:00":
        return value.date().isoformat()
    return (
        value.isoformat(sep=" ")
        if isinstance(value, datetime)
        else value.isoformat()
        if isinstance(value, date)
        else str(value)
    )
