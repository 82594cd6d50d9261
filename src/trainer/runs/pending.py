"""What a run that has succeeded may still lack: the comparison with its base, which follows training."""

from trainer.errors import ConfigError
from trainer.runs.lock import holder
from trainer.runs.process import is_here
from trainer.runs.run import LAUNCHED, Run


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


def pending_note(run: Run) -> str | None:
    """What to say to someone who looks at the run, if anything is missing or on its way."""
    if run.state == "paused" and (run.path / LAUNCHED).is_file() and not run.manifest():
        return (
            f"its process ended before training began; see {run.path / 'output.log'}; then: trainer resume {run.path}"
        )
    if not lacks_comparison(run):
        return None
    if is_worked_on(run):
        return "trained; its comparison with the base is being made"
    return f"trained; its comparison with the base is missing; make it with: trainer resume {run.path}"
