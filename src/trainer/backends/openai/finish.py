"""How a run ends: its outcome, and the comparison of base and tuned model where that was agreed to."""

from trainer.backends.http import Say
from trainer.errors import ExitCode, TrainerError
from trainer.extras import not_installed
from trainer.runs import Run
from trainer.runs.lock import locked
from trainer.runs.run import Outcome


def outcome_of(run: Run) -> Outcome:
    """The exit code and sentence of a run whose job has ended or rests."""
    status = run.status()
    match status["state"]:
        case "succeeded":
            sentence = run.comparison().get("verdict", {}).get("sentence")
            deploys = run.config().openai.service == "azure"
            try_it = f"trainer deploy {run.path}, and then trainer chat {run.path}" if deploys else ""
            return Outcome(ExitCode.DONE, "; ".join(filter(None, [status.get("summary"), sentence])), try_it)
        case "paused":
            return Outcome(ExitCode.RESUMABLE, f"run {run.name!r} is paused; go on with: train --resume {run.path}")
        case "cancelled":
            return Outcome(ExitCode.RUN_FAILED, f"run {run.name!r} was cancelled")
    return Outcome(ExitCode.RUN_FAILED, f"run {run.name!r} failed: {status.get('error')}")


def compare(run: Run, endpoint: str | None, say: Say) -> None:
    """Compare base and tuned model, once; whatever goes wrong in it does not undo the run."""
    if run.comparison():
        return
    try:
        from trainer.backends.openai.report import compare_models

        with locked(run.path, say):
            say(f"report: {compare_models(run, endpoint, say)}")
    except ModuleNotFoundError as error:
        told = not_installed(error, "comparing it with its base") or error
        message = f"the run is complete and was not compared: {told}"
    except TrainerError as error:
        message = f"the run is complete; its comparison with the base failed: {error}"
    else:
        return
    run.event(message, level="warning")
    say(message)
