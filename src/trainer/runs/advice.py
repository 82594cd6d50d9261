"""How to go on with a run, by what it is now: advice that the next command would refuse is none."""

from trainer.runs.checkpoint import list_checkpoints
from trainer.runs.run import Run


def further(run: Run) -> str:
    """What can be done to have an adapter of this run, or a better one."""
    return way_on(run) or "it holds no checkpoint to go on from; start a new run"


def way_on(run: Run) -> str | None:
    """The command that goes on with this run, None where nothing is left to go on with."""
    state = run.state
    if state in ("queued", "running", "validating_files"):
        return f"wait for it: trainer logs {run.path} --follow"
    if state not in ("succeeded", "cancelled"):
        return f"go on with: train --resume {run.path}"
    if state == "succeeded" and (run.adapter / "adapter_model.safetensors").is_file():
        return f"to train it further start a new run with model.base={run.path}"
    whole = [found.step for found in list_checkpoints(run.checkpoints) if found.problem() is None]
    if whole:
        return f"to train on from its last checkpoint start a new run with model.base={run.path}@{whole[-1]}"
    return None
