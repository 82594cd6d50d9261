"""Cleaning of a file: read it top to bottom."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from trainer.data.conversations import Conversation
from trainer.data.files.new_files import new_files
from trainer.data.quoting import printable, quoted
from trainer.errors import ConfigError, DataError
from trainer.extras import need
from trainer.kinds import Method
from trainer.workshop.clean.findings import KEPT_FINDINGS, Faults
from trainer.workshop.clean.kinds import KindChoice
from trainer.workshop.clean.row_edits import Edit
from trainer.workshop.clean.scan import Measure, MendedRows, Scan
from trainer.workshop.clean.system_prompts import system_message

MAX_CHARACTERS = 32_768
SIMILARITY = 0.8
LOG_SUFFIX = ".changes.jsonl"

Bar = Callable[[int], None]
Stage = Callable[[str, int], Bar | None]  # the name of a stage and the size of its work -> what is told of its progress


def num_characters(row: Conversation) -> tuple[int, str]:
    """The length of a row in characters, those of messages and calls."""
    messages = (*row.messages, *row.non_preferred)
    calls = sum(len(call.name) + len(call.arguments) for message in messages for call in message.tool_calls)
    return sum(len(message.content or "") for message in messages) + calls, "characters"


@dataclass(frozen=True, slots=True)
class FaultLimits:
    """Bounds of what is a fault: the share that similar texts have in common, and the longest row."""

    similarity: float = SIMILARITY
    max_length: int = MAX_CHARACTERS
    measure: Measure = num_characters
    findings: int | None = KEPT_FINDINGS


@dataclass(slots=True)
class Cleaning:
    """Faults of a file, the rows that go because of them, and the edits of the others.

    `removed` holds for each line its kind and the fault; `systems` the spelling that replaces another.
    """

    file: Path
    faults: Faults
    method: Method
    rows: int
    held_out_rows: int
    removed: dict[int, tuple[str, str]]
    systems: dict[str, str]
    num_edited: int

    @property
    def num_removed(self) -> int:
        return len(self.removed)

    @property
    def num_left(self) -> int:
        return self.rows - self.num_removed

    def to_json(self) -> dict[str, Any]:
        """The counts and the faults of each kind."""
        return {
            "file": str(self.file),
            "rows": self.rows,
            "validation_rows": self.held_out_rows,
            "rows_removed": self.num_removed,
            "rows_edited": self.num_edited,
            "kinds": [found.to_json() for found in self.faults],
        }


def examine(
    file: Path,
    held_out: Sequence[Path],
    choice: KindChoice,
    limits: FaultLimits = FaultLimits(),
    stage: Stage | None = None,
) -> Cleaning:
    """Find the faults of `file`, as `write_copy` mends them; nothing is written.

    Raises: MissingDependency; DataError, where a file cannot be read or a row breaks a rule.
    """
    need("trainer data clean", "numpy", "ftfy", extra="workshop")
    from trainer.workshop.clean.between_rows import RowsLeft  # needs numpy

    stage = stage or (lambda name, size: None)
    refuse_same_files(file, held_out)
    scan = Scan(Faults(str(file), choice, limits.findings), limits.measure, limits.max_length)
    with closing(scan.said):
        method = scan.read(file, stage("reading", _size(file)))
        for path in held_out:
            scan.read_held_out(path, method, stage("reading", _size(path)))
        systems = scan.systems.usual() if choice.wants("SYSTEM_VARIANT") else {}
        for line, text in scan.systems.rows(systems):
            usual, rows = quoted(systems[text]), scan.systems.count(systems[text])
            found = f"{quoted(text)} is {usual} in {rows:,} {'row' if rows == 1 else 'rows'}"
            scan.faults.add(line, "SYSTEM_VARIANT", "the system prompt", found)
            scan.edited.append(line)
        left = RowsLeft(scan)
        left.compare(limits.similarity, stage("comparing", len(scan.said)))
    removed = left.removed
    edited = set(scan.edited) - removed.keys()
    return Cleaning(file, scan.faults, method, scan.num_read, scan.num_held_out, removed, systems, len(edited))


def refuse_same_files(file: Path, held_out: Sequence[Path]) -> None:
    """Raises: ConfigError, where a file is held out that is cleaned, or that is given twice."""
    resolved = [path.resolve() for path in (file, *held_out)]
    if twice := [path for path in held_out if resolved.count(path.resolve()) > 1]:
        raise ConfigError(
            f"--validation: {printable(str(twice[0]))} is given twice, expected each file once; leave it out"
        )


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def write_copy(
    cleaning: Cleaning,
    output: Path,
    held_out: Sequence[Path],
    *,
    choice: KindChoice,
    force: bool,
    stage: Stage | None = None,
) -> Path:
    """Write the cleaned rows to `output`, and beside it a log with a line for each edit and each row that went.

    A row without an edit keeps its bytes. Returns the log's path.

    Raises: DataError, when a file exists (unless `force`), is one of the sources, or cannot be written.
    """
    log = log_of(output)
    if cleaning.rows and len(cleaning.removed) == cleaning.rows:
        name = printable(str(cleaning.file))
        raise DataError(f"{name}: no row would be left, expected one or more; choose fewer kinds with --only or --skip")
    bar = stage("writing", _size(cleaning.file)) if stage else None
    with new_files([output, log], [cleaning.file, *held_out], force=force) as (rows_file, log_file):
        reader = MendedRows(cleaning.file, choice, cleaning.method, bar)
        gone = iter(sorted(cleaning.removed))
        line = next(gone, None)
        for row, edits, is_edited in reader:
            while line is not None and line < row.line:
                _log_removed(log_file, cleaning, line)
                line = next(gone, None)
            if row.line != line:
                _write_row(rows_file, log_file, cleaning, reader, edits if is_edited else [])
        while line is not None:
            _log_removed(log_file, cleaning, line)
            line = next(gone, None)
        if reader.rows != cleaning.rows:
            name = printable(str(cleaning.file))
            raise DataError(f"{name}: the file was changed while it was read, expected it to rest; try again")
    return log


def log_of(output: Path) -> Path:
    """The log of changes of a cleaned copy."""
    return output.with_name(f"{output.stem}{LOG_SUFFIX}")


def _write_row(rows: BinaryIO, log: BinaryIO, cleaning: Cleaning, reader: MendedRows, edits: list[Edit]) -> None:
    line, value = reader.reader.line, reader.reader.value
    message = system_message(value, cleaning.method)
    if message is not None and (usual := cleaning.systems.get(message["content"])) is not None:
        where = "input.messages[0].content" if "input" in value else "messages[0].content"
        edits = [*edits, Edit("SYSTEM_VARIANT", where, message["content"], usual)]
        message["content"] = usual
    for edit in edits:
        change = {"kind": edit.kind, "where": edit.where, "before": edit.before, "after": edit.after}
        _log(log, cleaning, line.number, change)
    rows.write((json.dumps(value, ensure_ascii=line.raw.isascii()).encode() if edits else line.raw) + b"\n")


def _log_removed(log: BinaryIO, cleaning: Cleaning, line: int) -> None:
    kind, found = cleaning.removed[line]
    _log(log, cleaning, line, {"kind": kind, "removed": True, "found": found})


def _log(log: BinaryIO, cleaning: Cleaning, line: int, change: Mapping[str, object]) -> None:
    entry = {"file": _in_utf8(cleaning.file), "line": line, **change}
    log.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")


def _in_utf8(path: Path) -> str:
    """A path as text that UTF-8 can hold."""
    return str(path).encode("utf-8", "backslashreplace").decode()
