"""The process that validates jobs: rows, tokens, plan and price; what is in order goes into the queue, in its turn.

One works below a folder of runs at a time, started by a server and outliving it. It does one job after another, each
under the job's lock, and notes what it has found before it acts on it: killed anywhere, the next one goes on there.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
from typing import TYPE_CHECKING, Any

from trainer.api import spending
from trainer.api.errors import without_folders
from trainer.api.job import ENDED, FINDINGS, Job, held, job_by_id, job_ids, shared_file
from trainer.api.job_state import plain, trained_tokens
from trainer.api.settings import ApiSettings
from trainer.child_environment import training_environment
from trainer.config.load import dump_config
from trainer.config.schema import BASE_LEARNING_RATE, RunConfig
from trainer.errors import ConfigError, DataError, TrainerError
from trainer.kinds import learns_from_pairs
from trainer.runs import files, flock
from trainer.runs.manifest import NAME as MANIFEST
from trainer.runs.queue import Queue, entry_of
from trainer.runs.run import CONFIG, now

if TYPE_CHECKING:
    from trainer.backends.contract import Backend, Plan

OFFICE, RULES, LOG = "admission.lock", "admission.json", "admission.log"
POLL_SECONDS, IDLE_SECONDS = 0.1, 20.0  # libraries take seconds to load, so that a process waits for the next job
MOST_ATTEMPTS = 3  # of a job whose validation is killed, as by its size
SHOWN_ROWS = 20


class JobRefused(Exception):
    """A job that ends in its validation."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


def ensure_admission(settings: ApiSettings) -> None:
    """Have a process validate the jobs that wait for it, by the cap and quotas of these settings."""
    root, limits = settings.root, {key.caller.name: key.caller.max_tokens for key in settings.keys}
    rules = {"cap": settings.cap, "max_tokens": limits}
    if files.read_record(shared_file(root, RULES)) != rules:
        files.write_json(shared_file(root, RULES), rules)
    if flock.is_taken(shared_file(root, OFFICE)):
        return
    with shared_file(root, LOG).open("ab") as log:
        Popen(
            [sys.executable, "-m", "trainer.api.admission", str(root)],
            stdin=DEVNULL,
            stdout=log,
            stderr=STDOUT,
            start_new_session=True,
            env=training_environment(),
        )


def work(root: Path, idle_seconds: float = IDLE_SECONDS) -> None:
    """Validate jobs until none has come for a while; nothing where another process does."""
    office = flock.take(shared_file(root, OFFICE))
    if office is None:
        return
    settled: set[str] = set()
    until = time.monotonic() + idle_seconds
    try:
        while time.monotonic() < until:
            waiting = [id_ for id_ in reversed(job_ids(root)) if id_ not in settled]
            for id_ in waiting:
                if (job := job_by_id(root, id_)) is not None:
                    admit(root, job)
                settled.add(id_)
                until = time.monotonic() + idle_seconds
            time.sleep(0 if waiting else POLL_SECONDS)
    finally:
        os.close(office)


def admit(root: Path, job: Job) -> None:
    """Validate a job and let its run wait, or end it with the reason. Raises: OSError, TrainingError: a full disk."""
    with held(job):
        if job.is_admitted or _has_ended(job):
            return
        if _is_begun(job):  # killed between the queue and the note
            job.note_admission(admitted_at=now())
            return
        try:
            _validate(root, job)
        except JobRefused as refusal:
            _end(job, refusal)


def _has_ended(job: Job) -> bool:
    return files.read_record(job.run.path / "status.json").get("state") in ENDED


def _is_begun(job: Job) -> bool:
    """True where the run waits in the queue, or somebody has started it."""
    run = job.run
    return entry_of(run.path) is not None or run.is_launched or (run.path / MANIFEST).is_file()


def _validate(root: Path, job: Job) -> None:
    """Raises: JobRefused."""
    run, attempts = job.run, int(job.admission().get("attempts", 0)) + 1
    _look_for_cancel(job)
    job.note_admission(attempts=attempts)
    if attempts > MOST_ATTEMPTS:
        raise JobRefused("server_error", f"its validation ended {MOST_ATTEMPTS} times without a word; train on less")
    run.set_status("validating_files")
    if attempts == 1:
        for role, file in job.data_files.items():
            run.event(f"Validating {role} file: {file.id}")
    backend, plan = _planned(job)
    _look_for_cancel(job)
    numbers, tokens = _numbers(plan.config), plan.trained_tokens
    _hold_tokens(root, job, tokens)
    config = _capped(root, job, plan)
    files.write_whole(run.path / CONFIG, dump_config(config))
    if plan.findings:
        _keep_findings(job, [finding.to_json() for finding in plan.findings])
        run.event(
            f"{len(plan.findings)} warnings about the rows; {FINDINGS} among the result files has them", "warning"
        )
    job.note_admission(numbers=numbers, tokens=tokens)
    run.event("Files validated, moving job to queued state")
    backend.create(plan, True)
    backend.enqueue(run, lambda message: None, quote=plan.quote)
    job.note_admission(admitted_at=now())


def _capped(root: Path, job: Job, plan: "Plan[Any]") -> RunConfig:
    """The config of a plan; where it bills, with what is reserved as the cap of its run. Raises: JobRefused."""
    try:
        amount = spending.reserve(root, job, plan.quote, plan.ceiling, _rules(root).get("cap"))
    except ConfigError as error:
        raise JobRefused("spending_cap_exceeded", str(error)) from None
    if amount is None:
        return plan.config
    return plan.config.model_copy(update={"backend": plan.config.backend.model_copy(update={"spend_cap": amount})})


def _planned(job: Job) -> "tuple[Backend[Any], Plan[Any]]":
    """The backend and the plan of the job's run. Raises: JobRefused."""
    from trainer.backends.choose import choose
    from trainer.backends.quote import hold_cap

    try:
        config = job.run.config()
        backend = choose(config.backend.kind)
        backend.refuse_at_once(config, True, False)
        plan = backend.check_waiting(config, lambda message: None, None, True)
        hold_cap(plan.quote, config.backend.spend_cap)
        if plan.doubts:
            raise ConfigError(*plan.doubts)
    except DataError as error:
        raise _bad_rows(job, error) from None
    except TrainerError as error:
        raise JobRefused("invalid_configuration", without_folders(plain(job, str(error)))) from None
    except OSError:
        raise
    except Exception as error:  # of a library: told in the log, and the next job has its turn
        traceback.print_exc()
        raise JobRefused("server_error", f"unexpected {type(error).__name__} while its files were validated") from error
    return backend, plan


def _bad_rows(job: Job, error: DataError) -> JobRefused:
    """The rows that are wrong, by name; and all that was found of them in a file."""
    from trainer.data.read.checks import check_files

    config = job.run.config()
    paths = [
        [Path(source.path) for source in config.data.train_sources],
        [Path(p) for p in config.data.validation_paths],
    ]
    found: Sequence[dict[str, Any]] = ()
    try:
        report = check_files(*paths, allow_leak=config.data.allow_leak, method=config.training.method)
        found = [finding.to_json() for finding in report.findings]
    except DataError:
        pass
    if not any(one["severity"] == "error" for one in found):  # of a rule that needs the tokenizer
        found = [*found, *({"severity": "error", "found": problem} for problem in error.problems)]
    _keep_findings(job, found)
    param = "training_file" if any(_is_of(job, text) for text in error.problems) else "validation_file"
    words = "\n".join(plain(job, problem) for problem in error.problems[:SHOWN_ROWS])
    if (hidden := len(error.problems) - SHOWN_ROWS) > 0:
        words += f"\n… and {hidden:,} more"
    head = f"The job failed due to an invalid {param.replace('_', ' ')}."
    return JobRefused(f"invalid_{param}", f"{head} {words}\nall of them: {FINDINGS} among the result files", param)


def _is_of(job: Job, problem: str) -> bool:
    """True unless a problem is one of the validation rows."""
    file = job.validation_file
    return file is None or not problem.startswith(str(job.data_path(file).absolute()))


def _keep_findings(job: Job, found: Sequence[dict[str, Any]]) -> None:
    shown = [{name: plain(job, v) if isinstance(v, str) else v for name, v in one.items()} for one in found]
    files.write_whole(job.run.path / FINDINGS, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in shown))


def _numbers(config: RunConfig) -> dict[str, Any]:
    """The resolved hyperparameters."""
    training = config.training
    rate = training.learning_rate_multiplier
    if rate == "auto" and training.learning_rate is not None:
        rate = training.learning_rate / BASE_LEARNING_RATE
    found = {"n_epochs": training.n_epochs, "batch_size": training.batch_size, "learning_rate_multiplier": rate}
    return found | ({"beta": training.dpo.beta} if learns_from_pairs(training.method) else {})


def _hold_tokens(root: Path, job: Job, tokens: int | None) -> None:
    """Raises: JobRefused, where the job's tokens and those of the key's other jobs are more than it may have."""
    most = (_rules(root).get("max_tokens") or {}).get(job.owner)
    if most is None:
        return
    if tokens is None:
        raise JobRefused(
            "token_quota_exceeded", "its tokens cannot be counted beforehand, and its key has a limit of them"
        )
    used = sum(_used(other) for id_ in job_ids(root) if (other := job_by_id(root, id_)) and other.owner == job.owner)
    if used + tokens > most:
        words = f"it trains {tokens:,} tokens, and of the {most:,} of its key {max(most - used, 0):,} are left"
        raise JobRefused("token_quota_exceeded", words)


def _used(job: Job) -> int:
    """Tokens that a job counts for: those of its plan while it is open, those that were trained once it has ended."""
    admission, status = job.admission(), job.run.status()
    if not admission.get("admitted_at"):
        return 0
    if status["state"] in ("failed", "cancelled"):
        return (trained_tokens(admission, status) or 0) if status.get("step") else 0
    return int(admission.get("tokens") or 0)


def _rules(root: Path) -> dict[str, Any]:
    return files.read_record(shared_file(root, RULES))


def _look_for_cancel(job: Job) -> None:
    """Raises: JobRefused, where its caller has asked for its end."""
    if job.run.asked() == "cancel":
        raise JobRefused("cancelled", "")


def _end(job: Job, refusal: JobRefused) -> None:
    """Note why, then the end: so that whoever sees the end sees why."""
    if refusal.code == "cancelled":
        end_cancelled(job)
        return
    job.note_admission(error={"code": refusal.code, "message": refusal.message, "param": refusal.param})
    job.run.event(refusal.message, level="error")
    job.run.set_status("failed", error=refusal.message, finished_at=now())


def end_cancelled(job: Job) -> None:
    """End a job that nobody has begun to train; the caller holds it."""
    job.run.answer()
    job.run.set_status("cancelled", finished_at=now())
    job.run.event("Fine-tuning job cancelled")


def resume_queue(root: Path) -> None:
    """Start the queue's worker where runs wait and nobody starts them. Raises: ConfigError, TrainingError."""
    queue = Queue(root)
    if queue.worker() is None and queue.entries():
        queue.start_worker()


if __name__ == "__main__":
    work(Path(sys.argv[1]))
