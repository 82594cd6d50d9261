"""Runs of this machine that can be resumed: known before any library is loaded."""

import os

from trainer.errors import ConfigError
from trainer.inference.report.mlflow_artifact import report_is_unlogged
from trainer.runs import Run
from trainer.runs.lifecycle import further, lacks_comparison
from trainer.runs.lock import RunInUse, holder
from trainer.runs.process import is_here


def refuse_to_resume(run: Run) -> None:
    """Raises: ConfigError, for a run that is in use or has ended for good."""
    refuse_running(run)
    if run.state in ("succeeded", "cancelled") and not lacks_result(run):
        raise ConfigError(f"run {run.name!r}: is {run.state}, expected an unfinished run; {further(run)}")


def refuse_running(run: Run) -> None:
    """Before the model is loaded; the lock itself is taken when the run is written to. Raises: ConfigError."""
    owner, status = holder(run.path), run.status()
    if owner is None and status["state"] in ("running", "validating_files") and status.get("pid") != os.getpid():
        owner = status  # about to take the lock
    if owner is not None and is_here(owner):
        raise RunInUse.by(owner, run.path)


def lacks_result(run: Run) -> bool:
    """True if the run has succeeded and its comparison, or MLflow's copy of that, is missing."""
    return lacks_comparison(run) or (run.state == "succeeded" and report_is_unlogged(run))
