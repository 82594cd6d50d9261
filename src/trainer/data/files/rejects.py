"""Rows with an error set aside, and the others as clean copies of their files."""

from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from trainer.data.files.new_files import copy_rows, new_files
from trainer.data.read.checks import DataReport
from trainer.data.read.sources import apart


@dataclass(frozen=True, slots=True)
class CleanCopy:
    """The rows of `source` that have no error, in `file`."""

    source: Path
    file: Path
    rows: int


@dataclass(frozen=True, slots=True)
class Rejects:
    """The rows with an error, in `file`, and a copy without them of each file that had some."""

    file: Path
    rows: int
    clean: tuple[CleanCopy, ...]

    def to_json(self) -> dict[str, Any]:
        copies = [{"source": str(copy.source), "file": str(copy.file), "rows": copy.rows} for copy in self.clean]
        return {"file": str(self.file), "rows": self.rows, "clean": copies}


def set_aside(report: DataReport, sources: Sequence[Path], rejected: Path, *, force: bool = False) -> Rejects | None:
    """Write the rows with an error to `rejected`, and clean copies beside it; None where there is no such row.

    A file that has no row without an error is left out: it is to be converted or corrected, not cleaned.

    Raises: DataError, when a file exists (unless `force`) or cannot be written.
    """
    bad = {(error.file, error.line) for error in report.errors if error.line is not None}
    kept: dict[str, set[int]] = defaultdict(set)
    for row in (*report.conversations, *report.validation):
        if (row.file, row.line) not in bad:
            kept[row.file].add(row.line)
    with_errors = {file for file, _ in bad}
    names = [name for name in dict.fromkeys(map(str, sources)) if name in kept and name in with_errors]
    if not names:
        return None
    clean_names = apart(names, ".clean.jsonl")
    copies = [CleanCopy(Path(name), rejected.with_name(clean_names[name]), len(kept[name])) for name in names]
    with new_files([rejected, *(copy.file for copy in copies)], sources, force=force) as (rejects, *cleans):
        for name, clean in zip(names, cleans, strict=True):
            _divide(Path(name), kept[name], clean, rejects)
    return Rejects(rejected, sum(file in names for file, _ in bad), tuple(copies))


def _divide(source: Path, kept: Set[int], clean: BinaryIO, rejects: BinaryIO) -> None:
    copy_rows(source, lambda line: clean if line in kept else rejects)
