"""A run's life as others see it: whether a process is at it, what it lacks, how it resumes, and how it is stopped."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from trainer.errors import ConfigError
from trainer.kinds import executes_here
from trainer.runs import files
from trainer.runs.checkpoint import list_checkpoints
from trainer.runs.ledger import Ledger
from trainer.runs.lock import NAME as LOCK
from trainer.runs.lock import RunInUse, holder, locked
from trainer.runs.manifest import NAME as MANIFEST
from trainer.runs.ownership import refuse_removal
from trainer.runs.process import is_alive, is_here
from trainer.runs.queue import STARTED_BY_QUEUE, Agreed, Queue, entry_of, place_of
from trainer.runs.run import LAUNCHED, OUTPUT, Run, now

SILENT_SECONDS = 300.0  # a lock is renewed every five
LAST_LINES = 20
LAST_BYTES = 64 * 1024
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


def note_gate(run: Run, holds: bool, sentence: str) -> None:
    """Keep in a run's status if its gate holds; the run's state stays."""
    if run.status().get("gate_sentence") != sentence:
        run.event(sentence, level="info" if holds else "warning", kind="gate")
    run.set_status(run.state, gate="passed" if holds else "failed", gate_sentence=sentence)


def failed_gate(run: Run) -> str:
    """The sentence on a gate that does not hold; empty where it does, and where there is none."""
    status = run.status()
    return str(status.get("gate_sentence", "")) if status.get("gate") == "failed" else ""


def refuse_failed_gate(run: Run, is_ignored: bool) -> None:
    """Raises: ConfigError, where the run's gate does not hold, or waits for its comparison, and is not ignored."""
    words = failed_gate(run)
    if not words and lacks_comparison(run) and (gate := run.config().evaluation.gate) is not None:
        words = f"gate {gate} is not judged, as its comparison was not made (trainer evaluate {run.path} makes it)"
    if words and not is_ignored:
        raise ConfigError(
            f"run {run.name!r}: {words}, expected evaluation.gate to hold; look at {run.report / 'report.html'}, and "
            "use the model all the same with --ignore-gate"
        )


def is_worked_on(run: Run) -> bool:
    """True while a process of this machine works on the run, whatever its state says."""
    owners = (files.read_record(run.path / name) for name in (LOCK, LAUNCHED))
    return any(is_here(owner) and is_alive(owner) for owner in owners)


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
    if seconds < SILENT_SECONDS or place_of(run.path) is not None:
        return None
    return f"no sign of life for {seconds / 60:,.0f} min"


def _changed_at(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def _worker(run: Run, status: dict[str, Any]) -> dict[str, Any]:
    """The process that moves the run on, or is about to."""
    launched = files.read_record(run.path / LAUNCHED) if status["state"] == "queued" else {}
    return files.read_record(run.path / LOCK) or launched or status


def last_output(run: Run) -> list[str]:
    """The last lines that a run printed before it failed or stopped; empty where it did not, or none were kept.

    Lines of an earlier job, or of a process in the background before the one that failed, are not these.
    """
    status = run.status()
    has_stopped = status["state"] == "paused" and ("error" in status or _ended_before_training(run))
    return printed(run) if status["state"] == "failed" or has_stopped else []


def printed(run: Run) -> list[str]:
    """The last lines of the run's job, or of its process in the background."""
    status = run.status()
    if "job" in status:
        is_of_it = status.get("log_of") == status["job"]
    else:
        launched = files.read_record(run.path / LAUNCHED).get("pid")
        is_of_it = launched is not None and (launched == status.get("pid") or _ended_before_training(run))
    return _last_lines(run.path / OUTPUT) if is_of_it else []


def _last_lines(path: Path) -> list[str]:
    """A line that progress has written over and over counts as last shown."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.rstrip().rpartition("\r")[2] for line in text.split("\n")]
    return [line for line in lines if line][-LAST_LINES:]


def _ended_before_training(run: Run) -> bool:
    return run.state == "paused" and (run.path / LAUNCHED).is_file() and not (run.path / MANIFEST).is_file()


def pending_note(run: Run) -> str | None:
    """A note for whoever looks at the run, where anything is missing or on its way."""
    if note := queue_note(run):
        return note
    if silent := silence(run):
        worker = _worker(run, run.status())
        return (
            f"{silent} from process {worker.get('pid')} on {worker.get('host')!r}, which cannot be asked from here; "
            f"if it is gone, resume with: trainer resume {run.path}"
        )
    if _ended_before_training(run):
        return f"its process ended before training began; see {run.path / OUTPUT}; then: trainer resume {run.path}"
    if not lacks_comparison(run):
        return None
    if is_worked_on(run):
        return "trained; its comparison with the base is being made"
    return f"trained; its comparison with the base is missing; make it with: trainer resume {run.path}"


def queue_note(run: Run) -> str | None:
    """The run's place in the queue, and what to do where no process starts it; None where the queue has no more to do.

    A run that it has started may have lost its process.
    """
    if (place := entry_of(run.path)) is None or (place.number == 0 and run.state not in ("paused", "queued")):
        return None
    if place.number == 0 and (is_worked_on(run) or (place.has_worker and run.state == "queued")):
        return None
    words = str(place) if place.number else f"{place}, and its process is gone; it is resumed when its turn comes"
    if place.has_worker:
        return words
    there = "" if place.is_here else f", on {place.host!r}"
    return f"{words}; no worker starts it: trainer queue work --root {run.path.parent}{there}"


def enqueue(run: Run, num_gpus: int | None = None, quote: Agreed | None = None) -> int:
    """Let a new or stopped run wait in this machine's queue; its place among those that wait.

    Raises: ConfigError, when a process works on it, it waits already, or wants more GPUs than there are; TrainingError.
    """
    if is_worked_on(run):
        raise RunInUse(run.name, "is worked on", f"follow it: trainer logs {run.path} --follow")
    queue = Queue(run.path.parent)
    queue.refuse(run.name, num_gpus)
    if run.state != "succeeded":  # else it lacks its comparison
        run.answer()
        run.set_status("queued", error=None, stopped_by=None)
    run.event("put into the queue", kind="queue")
    return queue.add(run.name, num_gpus, quote)


def withdraw(run: Run, state: Literal["paused", "cancelled"]) -> bool:
    """Take a run out of the queue that waits there, or was started and has lost its process, and leave it in `state`.

    False where more is left to stop, or nothing to take out: also in the process that the queue has started.

    Raises: ConfigError, when it is in the queue of another machine; TrainingError.
    """
    if STARTED_BY_QUEUE in os.environ or (place := entry_of(run.path)) is None:
        return False
    if not place.is_here:
        if place.number == 0:
            return False
        raise ConfigError(f"run {run.name!r}: {place}, expected one of this machine; do that on {place.host!r}")
    queue = Queue(run.path.parent)
    with queue.changing() as entries:
        if queue.is_started(run.name):
            return False
        entries[:] = [entry for entry in entries if entry.run != run.name]
        if is_worked_on(run) or (not executes_here(run.backend) and Ledger(run.path).entries()):
            return False  # there is still something to stop
        if state == "cancelled" or run.state == "queued":
            run.set_status(state, finished_at=now() if state == "cancelled" else None)
        run.event(f"taken out of the queue, {state}", kind="queue")
    return True


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
    """Ask the run to stop after its current step; whether it has within `wait_seconds`. One that waits stops at once.

    Raises: ConfigError, when it is not running.
    """
    if withdraw(run, "paused"):
        return True
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
    if withdraw(run, "cancelled"):
        return True
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


def refuse_deletion(run: Run, say: Callable[[str], None]) -> None:
    """Raises: ConfigError, where a process works on the run or will, something may bill, or its folder holds more."""
    refuse_removal(run.path)
    if place := place_of(run.path):
        raise RunInUse(run.name, str(place), f"take it out first: trainer queue remove {run.path}")
    is_silent = silence(run) is not None
    if run.state in ("running", "validating_files") and not is_silent:
        raise RunInUse(run.name, f"is {run.state}", "stop its process first")
    if run.is_launched and not is_silent:
        raise RunInUse(run.name, "is about to be trained in the background", f"first: trainer cancel {run.path}")
    if (owner := holder(run.path)) is not None:
        if is_here(owner):
            raise RunInUse.by(owner, run.path)
        with locked(run.path, say):  # another machine's process is watched for a sign of life
            pass
    if billing := Ledger(run.path).billing():
        kept = ", ".join(f"{entry.thing.kind} {entry.thing.key}" for entry in billing)
        raise ConfigError(
            f"run {run.name!r}: {kept} may still bill, expected nothing that does; "
            f"first: trainer teardown {run.path} --everything"
        )


def _has_stopped(run: Run, wait_seconds: float) -> bool:
    until = time.monotonic() + wait_seconds
    while run.state in ("queued", "running", "validating_files"):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
