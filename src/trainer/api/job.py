"""A fine-tuning job: a run whose name is the job's id, with files of its own beside the run's.

api_job.json         who asked for what; written with the folder, and never again
api_admission.json   what its validation found; by the process that validates (admission.py)
api_outcome.json     what came of it: result files and webhooks; once it has ended (results.py)
findings.jsonl       faults of its rows, an object a line
data/                its rows, which stay when the caller deletes the files

An id begins with the time of its creation: names in order are jobs in order.
"""

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainer.api.folders import FOLDER
from trainer.errors import ConfigError
from trainer.runs import Run, files, flock
from trainer.runs.collection import run_below
from trainer.runs.ownership import MARKER

JOB, ADMISSION, OUTCOME = "api_job.json", "api_admission.json", "api_outcome.json"
FINDINGS, DATA = "findings.jsonl", "data"
FORMAT = 1
PREFIX = "ftjob-"
ID = re.compile(r"ftjob-[0-9a-f]{24}")
CHECKPOINT = re.compile(r"(?P<name>ft:.+):ckpt-step-(?P<step>[0-9]{1,18})")
ENDED = ("succeeded", "failed", "cancelled")

Role = Literal["training", "validation"]


@dataclass(frozen=True, slots=True)
class JobFile:
    """A file of a job: its id, its caller's name for it, and the name of the job's own copy in `data/`."""

    id: str
    filename: str
    kept_as: str


@dataclass(frozen=True, slots=True)
class Job:
    """A request for training, and whose it is. `base` is the offer's name, also where `model` is a tuned one."""

    run: Run
    id: str
    owner: str
    created_at: int
    model: str
    base: str
    training_file: JobFile
    validation_file: JobFile | None
    method: Literal["supervised", "dpo"]
    numbers: dict[str, Any]  # hyperparameters as asked for; those left to us are absent
    seed: int
    suffix: str | None = None
    metadata: dict[str, str] | None = None
    integrations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def tail(self) -> str:
        return self.id.removeprefix(PREFIX)

    @property
    def model_name(self) -> str:
        """The name of the model that comes of it."""
        suffix = re.sub(r"[^A-Za-z0-9._-]+", "-", self.suffix or "")
        return f"ft:{self.base}:{self.owner}:{suffix}:{self.tail}"

    def checkpoint_name(self, step: int) -> str:
        """The model's name as it was after `step`."""
        return f"{self.model_name}:ckpt-step-{step}"

    def data_path(self, file: JobFile) -> Path:
        return self.run.path / DATA / file.kept_as

    @property
    def data_files(self) -> dict[Role, JobFile]:
        found: dict[Role, JobFile] = {"training": self.training_file}
        return found | ({"validation": self.validation_file} if self.validation_file else {})

    def write(self, folder: Path) -> None:
        """Write the record into the folder that becomes the run's."""
        values = asdict(self)
        del values["run"]
        files.write_json(folder / JOB, {"format": FORMAT} | values)

    def admission(self) -> dict[str, Any]:
        """Notes of its validation so far; empty before it began."""
        return files.read_record(self.run.path / ADMISSION)

    def note_admission(self, **changes: Any) -> None:
        """Add to that; only the process that validates does."""
        files.write_json(self.run.path / ADMISSION, {"format": FORMAT} | self.admission() | changes)

    @property
    def is_admitted(self) -> bool:
        """True once its run waits in the queue, or has been there."""
        return bool(self.admission().get("admitted_at"))

    def outcome(self) -> dict[str, Any]:
        """The outcome of the job; empty before that is settled."""
        return files.read_record(self.run.path / OUTCOME)


def new_id() -> str:
    """An id that sorts after all earlier ones of this machine."""
    return f"{PREFIX}{time.time_ns():016x}{secrets.token_hex(4)}"


def read_job(run: Run) -> Job | None:
    """The job of a run; None of a run that came another way. Raises: ConfigError, of one of a newer version."""
    record = files.read_record(run.path / JOB)
    if not record:
        return None
    files.refuse_newer(run.path / JOB, record.pop("format", None), FORMAT)
    try:
        training, validation = (
            JobFile(**found) if (found := record.pop(f"{role}_file")) else None for role in ("training", "validation")
        )
        if training is None:
            raise TypeError("it has no training file")
        return Job(run, training_file=training, validation_file=validation, **record)
    except (TypeError, KeyError) as error:
        raise ConfigError(
            f"{run.path / JOB}: is damaged ({error}), expected it as it was written; bring it back"
        ) from None


def job_by_id(root: Path, id: str) -> Job | None:  # noqa: A002  # the API's word
    """The job of an id that anybody may have sent, whoever owns it."""
    if not ID.fullmatch(id) or (run := run_below(id, root)) is None:
        return None
    return read_job(run)


def job_ids(root: Path) -> list[str]:
    """The ids of all jobs below a folder, the newest first."""
    try:
        with os.scandir(root) as entries:
            return sorted((entry.name for entry in entries if ID.fullmatch(entry.name)), reverse=True)
    except FileNotFoundError:
        return []


def jobs_of(root: Path, owner: str) -> Iterator[Job]:
    """The jobs of an owner, the newest first, each read as it is reached."""
    for id_ in job_ids(root):
        if (job := job_by_id(root, id_)) is not None and job.owner == owner:
            yield job


def shared_file(root: Path, name: str) -> Path:
    """A file of what belongs to no job alone; its name has a dot, which no owner's has."""
    folder = root / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / name


@contextmanager
def held(job: Job) -> Iterator[None]:
    """Keep other processes from validating, ending or settling the job. Raises: ConfigError, where one lasts."""
    handle = flock.wait_for(job.run.path / MARKER)
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def alone(root: Path, name: str) -> Iterator[None]:
    """Be the only process that changes something of this name. Raises: ConfigError, where one never lets go."""
    handle = flock.wait_for(shared_file(root, f"{name}.lock"))
    try:
        yield
    finally:
        os.close(handle)
