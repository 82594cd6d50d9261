"""A run's measurements as charts ask for them: by column, and thinned without losing an extreme.

`Measurements` follow their file, results.csv or metrics.jsonl, and read each line once.
"""

import threading
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from trainer.runs.files import record_of
from trainer.runs.growth import growth
from trainer.runs.results import row_of

KEPT = 32  # files; a hundred thousand rows of two columns are 3 MB
Points = tuple[list[float], list[float]]  # steps and values
Row = Mapping[str, float]


class Column:
    """Values of a measure in the order of their steps; a step that is measured again has its last value."""

    def __init__(self) -> None:
        self.steps, self.values = array("d"), array("d")

    def add(self, step: float, value: float) -> None:
        if not self.steps or step > self.steps[-1]:
            self.steps.append(step)
            self.values.append(value)
            return
        place = bisect_left(self.steps, step)
        if self.steps[place] == step:
            self.values[place] = value
        else:
            self.steps.insert(place, step)
            self.values.insert(place, value)

    def thinned(self, num_buckets: int, low: float | None = None, high: float | None = None) -> Points:
        """Points from step `low` to `high`, at most four for each of the buckets of equal width.

        First, last, lowest and highest of a bucket remain: a line through them covers the same pixels as one through
        all, where a bucket is a pixel wide (Jugel and others, M4: A Visualization-Oriented Time Series Data
        Aggregation, VLDB 2014). The points beside the range stay too, so that lines run to its edges.
        """
        begin = 0 if low is None else max(0, bisect_left(self.steps, low) - 1)
        end = len(self.steps) if high is None else min(len(self.steps), bisect_right(self.steps, high) + 1)
        if end - begin <= 4 * num_buckets:
            return self.steps[begin:end].tolist(), self.values[begin:end].tolist()
        kept = [place for bounds in self._buckets(begin, end, num_buckets) for place in self._extremes(*bounds)]
        return [self.steps[place] for place in kept], [self.values[place] for place in kept]

    def _buckets(self, begin: int, end: int, num_buckets: int) -> Iterator[tuple[int, int]]:
        first, last = self.steps[begin], self.steps[end - 1]
        for number in range(1, num_buckets + 1):
            edge = first + (last - first) * number / num_buckets
            stop = end if number == num_buckets else bisect_left(self.steps, edge, begin, end)
            if stop > begin:
                yield begin, stop
            begin = stop

    def _extremes(self, begin: int, end: int) -> list[int]:
        values = self.values[begin:end]
        lowest, highest = values.index(min(values)), values.index(max(values))
        return sorted({begin, begin + lowest, begin + highest, end - 1})


@dataclass(frozen=True, slots=True)
class View:
    """Measurements as a chart draws them: thinned columns, the rows of the file, and the cursor after them."""

    columns: dict[str, Points]
    num_rows: int
    cursor: str


class Measurements:
    """Columns of a file that grows; threads may share one."""

    def __init__(self, path: Path) -> None:
        self.path, self.parse = path, PARSERS[path.name]
        self.cursor, self.columns, self.num_rows = "", defaultdict[str, Column](Column), 0
        self.lock = threading.Lock()

    def view(self, num_buckets: int, low: float | None = None, high: float | None = None) -> View:
        """All columns, thinned by `Column.thinned`, with what is new in the file."""
        with self.lock:
            self._refresh()
            columns = {name: column.thinned(num_buckets, low, high) for name, column in self.columns.items()}
            return View(columns, self.num_rows, self.cursor)

    def points(self, name: str) -> Points:
        """All of a column, with what is new in the file; empty where it was never measured."""
        with self.lock:
            self._refresh()
            column = self.columns.get(name, Column())
            return column.steps.tolist(), column.values.tolist()

    def _refresh(self) -> None:
        while True:
            found = growth(self.path, self.cursor)
            if found.starts_over:
                self.columns.clear()
                self.num_rows = 0
            for row in rows_of(found.lines, self.parse):
                self._add(row)
            self.cursor = found.cursor
            if not found.lines:
                return

    def _add(self, row: Row) -> None:
        self.num_rows += 1
        step = row["step"]
        for name, value in row.items():
            if name != "step":
                self.columns[name].add(step, value)


def rows_of(lines: list[str], parse: Callable[[str], Row | None]) -> Iterator[Row]:
    """Rows of the lines that hold one."""
    return (row for line in lines if (row := parse(line)) is not None)


def measured(line: str) -> Row | None:
    """The finite numbers of a line of metrics.jsonl; None where it has no step."""
    record = record_of(line) or {}
    numbers = {name: float(value) for name, value in record.items() if _is_number(value)}
    return numbers if "step" in numbers else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


PARSERS: dict[str, Callable[[str], Row | None]] = {"results.csv": row_of, "metrics.jsonl": measured}


class OpenMeasurements:
    """Files that were asked for last, with what was read of them."""

    def __init__(self, kept: int = KEPT) -> None:
        self.kept, self.lock = kept, threading.Lock()
        self.by_path: OrderedDict[Path, Measurements] = OrderedDict()

    def of(self, path: Path) -> Measurements:
        """Those of a run's results.csv or metrics.jsonl."""
        with self.lock:
            found = self.by_path.setdefault(path, Measurements(path))
            self.by_path.move_to_end(path)
            while len(self.by_path) > self.kept:
                self.by_path.popitem(last=False)
        return found
