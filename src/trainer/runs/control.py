"""Stopping a run from outside, wherever its process is: through the run directory, at the next step boundary."""

import time

from trainer.errors import ConfigError
from trainer.runs.lock import locked
from trainer.runs.pending import silence
from trainer.runs.run import Run, now


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
