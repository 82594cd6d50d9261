"""What a run may lack that its state does not tell: the comparison that follows training, or a sign of life."""

import time
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.runs import files
from trainer.runs.lock import NAME as LOCK
from trainer.runs.lock import holder
from trainer.runs.manifest import NAME as MANIFEST
from trainer.runs.process import is_here
from trainer.runs.run import LAUNCHED, Run

SILENT_SECONDS = 300.0  # a lock is renewed every five
SIGNS_OF_LIFE = (LOCK, LAUNCHED, "status.json", "events.jsonl")


def lacks_comparison(run: Run) -> bool:
    """Whether training is done and the comparison that its config asks for is not."""
    if run.state != "succeeded" or run.backend != "local" or run.comparison():
        return False
    try:
        config = run.config()
    except ConfigError:
        return False
    return config.evaluation.enabled and bool(config.data.validation_paths)


def is_worked_on(run: Run) -> bool:
    """Whether a process of this machine is at the run, whatever its state says."""
    owner = holder(run.path)
    return run.is_launched or (owner is not None and is_here(owner))


def silence(run: Run) -> str | None:
    """How long nothing was heard of a run's process that cannot be asked for from here, once that is minutes.

    Its machine, or container, is another one, and so may its clock be: who acts on this watches the lock first.
    """
    status = run.status()
    if status.get("backend", "local") != "local" or status["state"] not in ("queued", "running", "validating_files"):
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
    """What to say to someone who looks at the run, if anything is missing or on its way."""
    if silent := silence(run):
        worker = _worker(run, run.status())
        return (
            f"{silent} from process {worker.get('pid')} on {worker.get('host')!r}, which cannot be asked from here; "
            f"if it is gone, go on with: trainer resume {run.path}"
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
