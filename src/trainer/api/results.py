"""The end of a job: its result files, each made once, and the note from which its webhooks are sent.

A file's id is a digest of the job and its content. Whoever settles a job, after whatever has cut an earlier attempt
short, makes the same files under the same ids.
"""

import hashlib
import time
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from trainer.api.files import RESULTS, FileRecord, add_file
from trainer.api.folders import home_of
from trainer.api.job import ENDED, FINDINGS, OUTCOME, Job, held
from trainer.runs import files

METRICS_NAME, ADAPTER_NAME, FINDINGS_NAME = "step_metrics.csv", "adapter.zip", "findings.jsonl"
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can hold
PIECE_BYTES = 2**20


def fresh_outcome(job: Job) -> dict[str, Any]:
    """The outcome of the job; empty while it has not ended, or is not settled since."""
    found = job.outcome()
    return found if found and found.get("end") == _end_of(job) else {}


def settle(job: Job, root: Path) -> bool:
    """Make the result files of a job that has ended, and note what came of it; False where it has not ended.

    Raises: OSError, for a full disk; the next attempt makes the rest.
    """
    if _end_of(job) is None:
        return False
    if fresh_outcome(job):
        return True
    with held(job):
        end = _end_of(job)
        if end is None or fresh_outcome(job):
            return end is not None
        made = [_shown(record) for record in _result_files(job, root, end["state"])]
        if any(record["filename"] == ADAPTER_NAME for record in made):
            _tell(job, made)
        finished_at = _finished_at(job)
        files.write_json(
            job.run.path / OUTCOME, {"format": 1, "end": end, "finished_at": finished_at, "result_files": made}
        )
    return True


def _end_of(job: Job) -> dict[str, str] | None:
    """State and time of the job's end; None while it has not ended. A run that is resumed ends anew."""
    status = files.read_record(job.run.path / "status.json")
    if status.get("state") not in ENDED:
        return None
    return {"state": status["state"], "at": str(status.get("finished_at") or status.get("updated_at"))}


def _finished_at(job: Job) -> int:
    end = _end_of(job) or {}
    try:
        return int(datetime.fromisoformat(end.get("at", "")).timestamp())
    except ValueError:
        return int(time.time())


def _result_files(job: Job, root: Path, state: str) -> Iterator[FileRecord]:
    run = job.run
    if (run.path / "results.csv").is_file():
        yield _kept(job, root, METRICS_NAME, run.path / "results.csv")
    if state == "succeeded" and run.adapter.is_dir():
        packed = home_of(root, job.owner) / f"{job.id}.tmp"
        try:
            pack(run.adapter, packed)
            yield _kept(job, root, ADAPTER_NAME, packed)
        finally:
            packed.unlink(missing_ok=True)
    if (run.path / FINDINGS).is_file():
        yield _kept(job, root, FINDINGS_NAME, run.path / FINDINGS)


def _kept(job: Job, root: Path, name: str, source: Path) -> FileRecord:
    digest = hashlib.sha256(f"{job.id} {name} {files.sha256_of(source)}".encode()).hexdigest()
    return add_file(root, job.owner, name, RESULTS, source, f"file-{digest[:24]}")


def _shown(record: FileRecord) -> dict[str, Any]:
    return {"id": record.id, "filename": record.filename, "bytes": record.num_bytes, "sha256": record.sha256}


def _tell(job: Job, made: list[dict[str, Any]]) -> None:
    """Say in the job's events what has been made; once, as far as a kill allows."""
    told = [f"{record['filename']}: {record['id']}, sha256 {record['sha256']}" for record in made]
    words = [f"New fine-tuned model created: {job.model_name}", *(f"Result file {line}" for line in told)]
    known = {event.get("message") for event in job.run.events()}
    for line in [*words, "The job has successfully completed"]:
        if line not in known:
            job.run.event(line)


def pack(folder: Path, target: Path) -> None:
    """The files of a folder in one zip without compression; equal files are equal bytes, whenever they were packed."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), LONG_AGO)
                entry.external_attr = 0o644 << 16
                with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as packed:
                    while piece := source.read(PIECE_BYTES):
                        packed.write(piece)
