"""A run's life as others see it: whether a process is at it, what it lacks, how it resumes, and how it is stopped."""

import time
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.kinds import executes_here
from trainer.runs import files
from trainer.runs.checkpoint import list_checkpoints
from trainer.runs.lock import NAME as LOCK
from trainer.runs.lock import holder, locked
from trainer.runs.manifest import NAME as MANIFEST
from trainer.runs.process import is_here
from trainer.runs.run import LAUNCHED, Run, now

SILENT_SECONDS = 300.0  # a lock is renewed every five
SIGNS_OF_LIFE = (LOCK, LAUNCHED, "status.json", "events.jsonl")


def lacks_comparison(run: Run) -> bool:
    """True once training is done, until the comparison that the config asks for is."""
    if run.state != "succeeded" or not executes_here(run.backend) or run.comparison():
        return False
    try:
        config = run.config()
    except ConfigError:
        return False
    return config.evaluation.enabled and bool(config.data.validation_paths)


def is_worked_on(run: Run) -> bool:
    """True while a process of this machine works on the run, whatever its state says."""
    owner = holder(run.path)
    return run.is_launched or (owner is not None and is_here(owner))


def silence(run: Run) -> str | None:
    """Time without a sign of life from a process that this machine cannot look up, once it comes to minutes.

    Its machine, or container, is another one, and so may its clock be: who acts on this watches the lock first.
    """
    status = run.status()
    if not executes_here(status.get("backend", "local")) or status["state"] not in (
        "queued",
        "running",
        "validating_files",
    ):
        return None
    heard = [at for name in SIGNS_OF_LIFE if (at := _changed_at(run.path / name)) is not None]
    if not heard or is_here(_worker(run, status)):
        return None
    seconds = time.time() - max(heard)
    return f"no sign of life for {seconds / 60:,.0f} min" if seconds >= SILENT_SECONDS else None


def _changed_at(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def _worker(run: Run, status: dict[str, Any]) -> dict[str, Any]:
    """The process that moves the run on, or is about to."""
    launched = files.read_record(run.path / LAUNCHED) if status["state"] == "queued" else {}
    return files.read_record(run.path / LOCK) or launched or status


def pending_note(run: Run) -> str | None:
    """A note for whoever looks at the run, where anything is missing or on its way."""
    if silent := silence(run):
        worker = _worker(run, run.status())
        return (
            f"{silent} from process {worker.get('pid')} on {worker.get('host')!r}, which cannot be asked from here; "
            f"if it is gone, resume with: trainer resume {run.path}"
        )
    if run.state == "paused" and (run.path / LAUNCHED).is_file() and not (run.path / MANIFEST).is_file():
        return (
            f"its process ended before training began; see {run.path / 'output.log'}; then: trainer resume {run.path}"
        )
    if not lacks_comparison(run):
        return None
    if is_worked_on(run):
        return "trained; its comparison with the base is being made"
    return f"trained; its comparison with the base is missing; make it with: trainer resume {run.path}"


def further(run: Run) -> str:
    """The way to an adapter of this run, or to a better one."""
    return way_on(run) or "it holds no checkpoint to resume from; start a new run"


def way_on(run: Run) -> str | None:
    """The command that continues this run, None where nothing is left to do."""
    state = run.state
    if state in ("queued", "running", "validating_files"):
        return f"wait for it: trainer logs {run.path} --follow"
    if state not in ("succeeded", "cancelled"):
        return f"resume with: train --resume {run.path}"
    if state == "succeeded" and (run.adapter / "adapter_model.safetensors").is_file():
        return f"to train it further start a new run with model.base={run.path}"
    whole = [found.step for found in list_checkpoints(run.checkpoints) if found.problem() is None]
    if whole:
        return f"to train on from its last checkpoint start a new run with model.base={run.path}@{whole[-1]}"
    return None


def pause(run: Run, wait_seconds: float) -> bool:
    """Ask the run to stop after its current step; whether it has within `wait_seconds`.

    Raises: ConfigError, when it is not running.
    """
    if run.state not in ("running", "validating_files"):
        raise ConfigError(f"run {run.name!r}: is {run.state}, expected a running run")
    run.ask("pause")
    return _has_stopped(run, wait_seconds)


def cancel(run: Run, wait_seconds: float) -> bool:
    """End the run for good after its current step; whether it has within `wait_seconds`.

    Raises: ConfigError, when it has ended already.
    """
    if run.state in ("succeeded", "failed", "cancelled"):
        raise ConfigError(f"run {run.name!r}: is {run.state}, expected one that has not ended")
    if run.state != "paused" and not silence(run):
        run.ask("cancel")
        if not _has_stopped(run, wait_seconds):
            return False
    if run.state == "paused" or silence(run):  # nobody is there to answer
        with locked(run.path, lambda message: None):
            run.answer()
            run.set_status("cancelled", finished_at=now())
            run.event("cancelled")
    return True


def _has_stopped(run: Run, wait_seconds: float) -> bool:
    until = time.monotonic() + wait_seconds
    while run.state in ("queued", "running", "validating_files"):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
