"""What a run that has succeeded may still lack: the comparison with its base, which follows training."""

from trainer.errors import ConfigError
from trainer.runs.lock import holder
from trainer.runs.run import Run


def lacks_comparison(run: Run) -> bool:
    """Whether training is done and the comparison that its config asks for is not."""
    if run.state != "succeeded" or run.backend != "local" or run.comparison():
        return False
    try:
        config = run.config()
    except ConfigError:
        return False
    return config.evaluation.enabled and bool(config.data.validation_paths)


def pending_note(run: Run) -> str | None:
    """What to say to someone who looks at the run, if anything is missing or on its way."""
    if not lacks_comparison(run):
        return None
    if holder(run.path) is not None:
        return "trained; its comparison with the base is being made"
    return f"trained; its comparison with the base is missing; make it with: trainer resume {run.path}"
