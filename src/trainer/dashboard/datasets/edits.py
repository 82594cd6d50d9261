"""Corrected rows of a file: kept aside until they are written as a new version of it, never in place."""

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from trainer.dashboard.datasets.files import OWN, VERSION, DataSet
from trainer.data.files.new_files import new_files
from trainer.data.json_scanner import JsonProblem
from trainer.data.read.data_files import numbered_lines, opened
from trainer.data.rules.findings import Finding, FindingList
from trainer.data.rules.preferences import check_preference
from trainer.data.rules.row import check_row, foreign_layout, method_of
from trainer.data.rules.tools import ToolLists
from trainer.data.strict_json import parse
from trainer.errors import ConfigError, DataError
from trainer.kinds import Method, learns_from_pairs
from trainer.runs import files, flock

FileState = tuple[str, int, int]  # that of DataSet.state
MAX_EDITS = 10_000
CHUNK_BYTES = 1 << 20


def checked_row(text: str, file: str, line: int, method: Method | None) -> tuple[str, list[Finding]]:
    """The row of `text` as a line of JSON, and the warnings about it.

    Raises: DataError, when it breaks a rule that a row has to keep.
    """
    findings = FindingList(file, "local", line=line)
    value = parse(text)
    if isinstance(value, JsonProblem):
        findings.add(value.code, "the row", value.found, value.accepted, value.fix, column=value.column)
    elif not isinstance(value, dict):
        findings.add("ROW", "the row", "is no object", "an object with messages")
    elif layout := foreign_layout(value, method or method_of(value)):
        findings.add(layout[0], "the row", f"has {layout[1]}", "a row like the others of the file")
    else:
        check = check_preference if learns_from_pairs(method or method_of(value)) else check_row
        check(value, ToolLists(), findings)
    if errors := [finding for finding in findings.findings if finding.severity == "error"]:
        raise DataError(*map(_in_words, errors))
    return json.dumps(value, ensure_ascii=False), findings.findings


def _in_words(finding: Finding) -> str:
    """A finding without its place, as it stands beside the row's own field."""
    place = f"column {finding.column}: " if finding.column else ""
    where = f"{finding.where} " if finding.where else ""
    accepted = f", expected {finding.accepted}" if finding.accepted else ""
    return f"{place}{finding.code}: {where}{finding.found}{accepted}; {finding.fix}"


class Edits:
    """Corrections by file; they hold for the file as it was when the first of them was made.

    Those of a file that has changed since stay in a record of their own until they are discarded.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / ".ui" / "edits"

    def of(self, file: DataSet) -> dict[int, str | None]:
        """Corrected rows by line, None where the row is left out; none of a file that has changed since."""
        return _rows_of(self._record(file), file.state)

    def earlier(self, file: DataSet) -> dict[Path, int]:
        """Records of corrections that were made before the file changed, each with their number."""
        state, found = file.state, {}
        for path in sorted(self.folder.glob(f"{file.id}*.json")):
            record = files.read_record(path)
            rows = record.get("rows")
            if isinstance(rows, dict) and rows and record.get("state") != list(state):
                found[path] = len(rows)
        return found

    def set(self, file: DataSet, line: int, text: str | None) -> None:
        """Keep a checked row for the next version; None leaves the row out. Raises: ConfigError."""
        with self._changing(file, file.state) as rows:
            if len(rows) >= MAX_EDITS and line not in rows:
                found = f"has {MAX_EDITS:,} corrections, expected fewer"
                raise ConfigError(f"{file.name}: {found}; write the version first")
            rows[line] = text

    def undo(self, file: DataSet, line: int) -> None:
        """Forget the correction of a line."""
        with self._changing(file, file.state) as rows:
            rows.pop(line, None)

    def discard(self, file: DataSet) -> None:
        """Forget all corrections of the file as it is."""
        with self._changing(file, file.state) as rows:
            rows.clear()

    def discard_earlier(self, file: DataSet) -> None:
        """Forget the corrections that were made before the file changed."""
        with self._locked(file):
            for path in self.earlier(file):
                path.unlink(missing_ok=True)

    def write_version(self, file: DataSet) -> Path:
        """A new file beside the old one with the corrected rows; all other lines byte for byte.

        A correction that is saved meanwhile stays for the next version.

        Raises: ConfigError, where nothing is corrected; DataError, where it cannot be written.
        """
        state, rows = file.state, self.of(file)
        if not rows:
            raise ConfigError(f"{file.name}: has no corrections, expected one at least; correct a row first")
        path = next_version(file.path)
        with opened(file.path) as source, new_files([path], [file.path], force=False) as (made,):
            _copy(source, made, rows)
        with self._changing(file, state) as kept:
            for line in [line for line in kept if line in rows and kept[line] == rows[line]]:
                del kept[line]
        return path

    @contextlib.contextmanager
    def _changing(self, file: DataSet, state: FileState) -> Iterator[dict[int, str | None]]:
        """The corrections of a state of the file, alone; what the block makes of them is kept."""
        with self._locked(file):
            path, record = self._file(file), self._record(file)
            before = _rows_of(record, state)
            rows = dict(before)
            yield rows
            if rows == before:
                return
            if record.get("rows") and record.get("state") != list(state):
                path.replace(path.with_name(f"{file.id}.{time.time_ns()}.json"))
            if rows:
                kept: dict[str, Any] = {"state": list(state), "rows": {str(line): rows[line] for line in rows}}
                files.write_json(path, kept)
            else:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, file: DataSet) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = flock.wait_for(self.folder / f"{file.id}.lock")
        try:
            yield
        finally:
            os.close(handle)

    def _record(self, file: DataSet) -> dict[str, Any]:
        return files.read_record(self._file(file))

    def _file(self, file: DataSet) -> Path:
        return self.folder / f"{file.id}.json"


def _rows_of(record: Mapping[str, Any], state: FileState) -> dict[int, str | None]:
    rows = record.get("rows")
    if record.get("state") != list(state) or not isinstance(rows, dict):
        return {}
    return {int(line): text for line, text in rows.items()}


def _copy(source: BinaryIO, made: BinaryIO, rows: Mapping[int, str | None]) -> None:
    """Copy a file with other rows in it: byte for byte between them, its line ends and byte order mark too."""
    copied, goes_on = 0, False  # the bytes that are done; True while a correction reaches up to the next line
    corrected: list[tuple[int, int, bytes]] = []  # from, up to, and what stands there instead
    for line in numbered_lines(source):
        if goes_on:
            corrected[-1] = (corrected[-1][0], line.offset, corrected[-1][2])
            goes_on = False
        if line.number in rows:
            text = rows[line.number]
            corrected.append((line.offset, line.offset + len(line.raw), (text or "").encode()))
            goes_on = text is None or not line.whole
    size = source.seek(0, os.SEEK_END)
    if goes_on:
        corrected[-1] = (corrected[-1][0], size, corrected[-1][2])
    for begin, end, content in corrected:
        _copy_range(source, made, copied, begin)
        made.write(content)
        copied = end
    _copy_range(source, made, copied, size)


def _copy_range(source: BinaryIO, made: BinaryIO, begin: int, end: int) -> None:
    source.seek(begin)
    while begin < end:
        chunk = source.read(min(CHUNK_BYTES, end - begin))
        made.write(chunk)
        begin += len(chunk)


def next_version(path: Path) -> Path:
    """The path of the next version beside a file, which is free: rows.jsonl, rows.v2.jsonl, rows.v3.jsonl."""
    stem, number = VERSION.sub("", path.stem), 2
    if found := VERSION.search(path.stem):
        number = int(found[1]) + 1
    if path.parent.parts[-2:] == OWN.parts:  # its name begins with a digest, which the new content has not
        stem = f"{secrets.token_hex(6)}-{stem[13:]}"
    while (made := path.with_name(f"{stem}.v{number}{path.suffix}")).exists():
        number += 1
    return made


def append_to_set(own: Path, name: str, row: dict[str, Any], used: frozenset[Path]) -> Path:
    """Append a row, checked, to the newest version of a named set; a file that a run has read gets a new version.

    Raises: DataError, when the row breaks a rule; ConfigError, for a name that is none.
    """
    from trainer.inference.dialogue import save_row

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", name):
        raise ConfigError(
            f"the set's name is {name[:80]!r}, expected up to 61 letters, digits, '.', '_' and '-'; choose another"
        )
    own.mkdir(parents=True, exist_ok=True)
    stem = name.removesuffix(".jsonl")
    versions = sorted(
        (path for path in own.glob(f"*-{stem}*.jsonl") if VERSION.sub("", path.stem)[13:] == stem),
        key=lambda path: int(found[1]) if (found := VERSION.search(path.stem)) else 1,
    )
    newest = versions[-1] if versions else own / f"{secrets.token_hex(6)}-{stem}.jsonl"
    if newest.resolve() not in used:
        save_row(newest, row)
        return newest
    text = checked_row(json.dumps(row), name, 0, "sft")[0]
    path = next_version(newest)
    with new_files([path], [newest], force=False) as (made,):
        content = newest.read_bytes()
        made.write(content + b"\n" * (not content.endswith(b"\n")) + text.encode() + b"\n")
    return path
