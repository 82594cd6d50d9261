"""The measurements by step: results.csv in the fine-tuning service's own columns, so that one reader serves all."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from trainer.runs.files import from_the_end

COLUMNS = (
    "step",
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)
SEARCHED_ROWS = 2_000  # for a value that is measured rarely


def parse(text: str) -> tuple[list[dict[str, float]], bool]:
    """The rows of the whole lines, each with the cells that hold a number; and whether a cell held something else."""
    rows: list[dict[str, float]] = []
    is_damaged = False
    for cells in csv.DictReader(text[: text.rfind("\n") + 1].replace("\0", "").splitlines()):
        values = {key: number_of(cell) for key, cell in cells.items() if key in COLUMNS and cell}
        row = {key: value for key, value in values.items() if value is not None}
        is_damaged |= len(row) < len(values) or None in cells
        if "step" in row:
            rows.append(row)
    return rows, is_damaged


def row_of(line: str) -> dict[str, float] | None:
    """The cells of a line of the file that hold a number; None where it is no row."""
    row = dict(_cells(line))
    return row if "step" in row else None


def _cells(line: str) -> Iterator[tuple[str, float]]:
    """The columns of a line that hold a number."""
    for column, cell in zip(COLUMNS, line.strip().split(","), strict=False):
        if cell and (value := number_of(cell)) is not None:  # most are empty, and an exception for each takes long
            yield column, value


def last_values(path: Path, columns: Sequence[str]) -> dict[str, float]:
    """The last value of each column, read from the file's end; a column that has none is absent."""
    found: dict[str, float] = {}
    for line in islice(from_the_end(path), SEARCHED_ROWS):
        found = {column: value for column, value in _cells(line) if column in columns} | found
        if len(found) == len(columns):
            break
    return found


def is_damaged_at_its_end(path: Path) -> bool:
    """True where the last line holds anything but numbers."""
    line = next(from_the_end(path), "").strip()
    return line != ",".join(COLUMNS) and any(cell and number_of(cell) is None for cell in line.split(","))


def as_line(row: Mapping[str, float]) -> str:
    """A row of the file; what was not measured stays empty."""
    cells = (row.get(column) for column in COLUMNS)
    return ",".join("" if cell is None else f"{cell:.10g}" for cell in cells) + "\n"


def number_of(cell: object) -> float | None:
    """The finite number that a cell holds; None where it holds something else."""
    try:
        value = float(cell) if isinstance(cell, str) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
