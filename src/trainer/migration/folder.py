"""A migration's folder: what was fetched, by its digest, so that a second call goes on where the first one stopped.

migration.json   the source, the files with their sha256, what could not be had, what was agreed to
train.jsonl …    the job's rows, as they were fetched
old/             job.json, results.csv, checkpoints.json
config.yaml      the new run
answers.jsonl    the old model's answers, each paid for once
comparison.json, report.html
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.migration.old_job import OldJob
from trainer.runs import files
from trainer.runs.manifest import Role

FORMAT = 1
RECORD, CONFIG, PAGE, COMPARISON, ANSWERS = (
    "migration.json", "config.yaml", "report.html", "comparison.json", "answers.jsonl",
)  # fmt: skip
JOB, RESULTS, CHECKPOINTS = "old/job.json", "old/results.csv", "old/checkpoints.json"


@dataclass(frozen=True, slots=True)
class Folder:
    """One migration's folder, which may not exist yet."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / CONFIG

    def record(self, source: str) -> dict[str, Any]:
        """Everything known so far; empty for a folder that is not there. Raises: ConfigError, for somebody else's."""
        found = files.read_record(self.path / RECORD)
        files.refuse_newer(self.path / RECORD, found.get("format"), FORMAT)
        if not found and self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ConfigError(
                f"--output: {str(self.path)!r} exists and is no migration's folder, expected a new one; name another"
            )
        if found and found.get("source") != source:
            raise ConfigError(
                f"--output: {str(self.path)!r} holds the migration of {found.get('source')!r}, expected that of "
                f"{source!r}; name another folder"
            )
        return found

    def note(self, source: str, **facts: Any) -> None:
        """Add facts to the record; made with the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        record = {"format": FORMAT, "source": source} | files.read_record(self.path / RECORD) | facts
        files.write_json(self.path / RECORD, record)

    def keep(self, old: OldJob, given: Mapping[Role, Path]) -> None:
        """Write what was read, the record of all last. Raises: ConfigError, where a file holds something else."""
        if not files.read_record(self.path / RECORD):
            self.note(old.source)
        kept: dict[str, Any] = {}
        for role, content in old.files.items():
            self._keep(path := self.path / f"{role}.jsonl", content)
            kept[role] = _entry(path)
            self.note(old.source, files=self._kept() | kept)
        kept |= {role: _entry(path) for role, path in given.items()}
        if old.job:
            self._keep(self.path / JOB, _json(old.job))
            self._keep(self.path / CHECKPOINTS, _json(list(old.checkpoints)))
        if old.results is not None:
            self._keep(self.path / RESULTS, old.results)
        self.note(old.source, files=self._kept() | kept, model=old.model, lost=list(old.lost), complete=True)

    def rows(self, record: Mapping[str, Any]) -> dict[Role, Path]:
        """The files of rows in the record. Raises: ConfigError, for each that is no longer what it was."""
        found: dict[Role, Path] = {}
        problems = []
        for role, entry in record.get("files", {}).items():
            path = Path(entry["path"])
            found[role] = path
            if not path.is_file() or digest_of(path) != entry["sha256"]:
                problems.append(
                    f"{path}: is gone or has changed since it was fetched, expected sha256 {entry['sha256'][:16]}…; "
                    "bring it back, or begin anew with --output"
                )
        if problems:
            raise ConfigError(*problems)
        return found

    def job(self) -> dict[str, Any]:
        """The old job, as the service described it; empty where that is not known."""
        return files.read_record(self.path / JOB)

    def results(self) -> bytes | None:
        path = self.path / RESULTS
        return path.read_bytes() if path.is_file() else None

    def _kept(self) -> dict[str, Any]:
        return dict(files.read_record(self.path / RECORD).get("files", {}))

    def _keep(self, path: Path, content: bytes) -> None:
        """Write a new file; one that is there already must be the same."""
        if path.exists():
            if path.is_file() and digest_of(path) == hashlib.sha256(content).hexdigest():
                return
            if path.suffix == ".json":  # what a service says of an ended job may gain fields
                return
            raise ConfigError(f"{path}: exists and holds something else than was fetched; name another --output")
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, content)


def digest_of(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(path: Path) -> dict[str, Any]:
    return {"path": str(path), "sha256": digest_of(path), "bytes": path.stat().st_size}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
