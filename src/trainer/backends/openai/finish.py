"""How a run ends: its outcome, and the comparison of base and tuned model where that was agreed to."""

from trainer.errors import ExitCode
from trainer.runs import Run
from trainer.runs.outcome import Outcome


def outcome_of(run: Run) -> Outcome:
    """The exit code and sentence of a run whose job has ended or rests."""
    status = run.status()
    match status["state"]:
        case "succeeded":
            sentence = run.comparison().get("verdict", {}).get("sentence")
            return Outcome(ExitCode.DONE, "; ".join(filter(None, [status.get("summary"), sentence])))
        case "paused":
            return Outcome(ExitCode.RESUMABLE, f"run {run.name!r} is paused; go on with: train --resume {run.path}")
        case "cancelled":
            return Outcome(ExitCode.RUN_FAILED, f"run {run.name!r} was cancelled")
    return Outcome(ExitCode.RUN_FAILED, f"run {run.name!r} failed: {status.get('error')}")
