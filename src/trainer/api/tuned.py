"""Tuned models by their names: each is a job's adapter, or the adapter of one of its checkpoints."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.api.errors import ApiError
from trainer.api.job import CHECKPOINT, PREFIX, Job
from trainer.api.job_list import all_jobs, find
from trainer.runs import Run, files
from trainer.runs.checkpoint import Checkpoint, folder_of
from trainer.runs.run import now

TUNED = "ft:"
DELETED = "api_deleted.json"  # in the run's folder, once its owner has deleted the model


@dataclass(frozen=True, slots=True)
class JobModel:
    """A job's model; `step` of one of its checkpoints, None of its result."""

    job: Job
    step: int | None = None

    @property
    def id(self) -> str:
        """Its name."""
        return self.job.model_name if self.step is None else self.job.checkpoint_name(self.step)

    @property
    def run(self) -> Run:
        return self.job.run

    @property
    def adapter(self) -> Path:
        """The folder with its adapter."""
        return self.run.adapter if self.step is None else folder_of(self.run.checkpoints, self.step)

    @property
    def reference(self) -> str:
        """The model as `model.base` names it."""
        return str(self.run.path.absolute()) + ("" if self.step is None else f"@{self.step}")

    @property
    def is_there(self) -> bool:
        if (self.run.path / DELETED).exists():
            return False
        if self.step is None:
            return self.run.state == "succeeded" and (self.adapter / "adapter_model.safetensors").is_file()
        return self.adapter.is_dir() and Checkpoint(self.adapter).problem(reads=False) is None


def find_model(root: Path, owner: str, name: str, param: str | None = None) -> JobModel:
    """A tuned model of this owner. Raises: ApiError, where there is none, or it is another's."""
    found = CHECKPOINT.fullmatch(name)
    whole, step = (found["name"], int(found["step"])) if found else (name, None)
    job = find(root, PREFIX + whole.rpartition(":")[2])
    if job is not None and job.owner == owner and job.model_name == whole:
        tuned = JobModel(job, step)
        if tuned.is_there:
            return tuned
    words = f"The model {name[:200]!r} does not exist or you do not have access to it."
    raise ApiError(404 if param is None else 400, words, "model_not_found", param or "model")


def tuned_models(root: Path, owner: str) -> Iterator[JobModel]:
    """The models of an owner's jobs, the newest first, without those of checkpoints."""
    for job in all_jobs(root):
        if job.owner == owner and (tuned := JobModel(job)).is_there:
            yield tuned


def delete_model(tuned: JobModel) -> None:
    """Remove a job's model with its checkpoints, for good; the run's records stay. Raises: OSError."""
    files.write_json(tuned.run.path / DELETED, {"deleted_at": now()})
    for folder in (tuned.run.adapter, tuned.run.checkpoints):
        shutil.rmtree(folder, ignore_errors=True)
