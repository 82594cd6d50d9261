"""A job in OpenAI's form: its state is its run's, as far as its caller may know it."""

from datetime import datetime
from typing import Any

from trainer.api.errors import without_folders
from trainer.api.job import ENDED, Job
from trainer.api.results import fresh_outcome
from trainer.runs import files
from trainer.runs.files import stamp
from trainer.runs.progress import seconds_left
from trainer.runs.queue import entry_of

NUMBERS = ("n_epochs", "batch_size", "learning_rate_multiplier")


def state_of(job: Job, status: dict[str, Any] | None = None) -> str:
    """The state, in OpenAI's words and `paused`.

    Until its validation has ended it is validating, whatever the process that validates is at; a run whose process is
    gone waits for its turn where the queue still has it.
    """
    if not job.is_admitted:
        written = files.read_record(job.run.path / "status.json").get("state")
        return str(written) if written in ENDED else "validating_files"
    status = status or job.run.status()
    match status["state"]:
        case "validating_files":
            return "queued"
        case "paused" if "stopped_by" not in status and entry_of(job.run.path) is not None:
            return "queued"
    return str(status["state"])


def shown_job(job: Job) -> dict[str, Any]:
    """The job as clients read it."""
    admission, status = job.admission(), job.run.status()
    state, outcome = state_of(job, status), fresh_outcome(job)
    if state in ENDED and not outcome:  # its files are not there yet
        state = "running" if job.is_admitted else "validating_files"
    has_ended = state in ENDED
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": job.created_at,
        "model": job.model,
        "organization_id": f"org-{job.owner}",
        "status": state,
        "training_file": job.training_file.id,
        "validation_file": job.validation_file.id if job.validation_file else None,
        "method": {"type": job.method, job.method: {"hyperparameters": _numbers(job, admission)}},
        "hyperparameters": {name: value for name, value in _numbers(job, admission).items() if name in NUMBERS},
        "seed": job.seed,
        "metadata": job.metadata,
        "integrations": job.integrations,
        "fine_tuned_model": job.model_name if state == "succeeded" else None,
        "trained_tokens": trained_tokens(admission, status) if state == "succeeded" else None,
        "result_files": [file["id"] for file in outcome.get("result_files", ())] if has_ended else [],
        "finished_at": outcome.get("finished_at") if has_ended else None,
        "estimated_finish": _estimated_finish(job, state, status),
        "error": error_of(job, admission, status) if state == "failed" else None,
    }


def _numbers(job: Job, admission: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters: as resolved, before that as asked for, and auto for those that were left to us."""
    names = (*NUMBERS, "beta") if job.method == "dpo" else NUMBERS
    resolved = admission.get("numbers") or {}
    return {name: resolved.get(name, job.numbers.get(name, "auto")) for name in names}


def trained_tokens(admission: dict[str, Any], status: dict[str, Any]) -> int | None:
    """Tokens of the training rows times their epochs, as far as the run has come."""
    tokens, step, total = admission.get("tokens"), status.get("step"), status.get("total_steps")
    if not isinstance(tokens, int):
        return None
    return tokens if not step or not total else round(tokens * step / total)


def error_of(job: Job, admission: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    """The reason why the job has failed, without paths of this machine."""
    if error := admission.get("error"):
        return dict(error)
    words = without_folders(plain(job, str(status.get("error") or "the run has failed without a reason")))
    return {"code": "training_failed", "message": words, "param": None}


def plain(job: Job, words: str) -> str:
    """A sentence about the run for its caller, who knows files by their own names and this machine not at all."""
    for file in job.data_files.values():
        words = words.replace(str(job.data_path(file).absolute()), file.filename)
        words = words.replace(str(job.data_path(file)), file.filename)
    root = job.run.path.parent
    return words.replace(f"{root.absolute()}/", "").replace(f"{root}/", "")


def _estimated_finish(job: Job, state: str, status: dict[str, Any]) -> int | None:
    step = status.get("step")
    if state != "running" or not isinstance(step, int) or (left := seconds_left(job.run, step)) is None:
        return None
    at = stamp(job.run.path / "metrics.jsonl")
    return None if at is None else int(at[2] / 1e9 + left)


def seconds_of(time: object) -> int | None:
    """A time of a run's files in seconds since 1970; None of what is none."""
    try:
        return int(datetime.fromisoformat(str(time)).timestamp())
    except ValueError:
        return None
