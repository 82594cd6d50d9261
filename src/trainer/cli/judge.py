"""`trainer compare RUN --judge`: a model behind an endpoint as the judge of a run's answers."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from trainer.cli.backends import agree, show_plan
from trainer.cli.console import err, say
from trainer.errors import ConfigError, ExitCode
from trainer.runs import Run
from trainer.training.interrupt import Interruption

if TYPE_CHECKING:
    from trainer.workshop.judge.judge import JudgePlan, JudgeProgress, JudgeSettings


def refuse_stray(judge: str | None, runs: list[str], **options: object) -> None:
    """Refuse options of a judge without one, a judge without its endpoint or with several runs. Raises: ConfigError."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if judge is None:
        if given:
            raise ConfigError(
                *(f"{name}: is given without --judge, expected both; add --judge MODEL" for name in given)
            )
        return
    if "--endpoint" not in given:
        raise ConfigError("--judge: is given without --endpoint, expected both; add --endpoint URL")
    if len(runs) != 1:
        raise ConfigError(
            f"--judge: is given with {len(runs)} runs, expected one, whose answers are judged beside those before "
            "tuning; name one run at a time"
        )


def judged(run: Run, settings: "JudgeSettings", yes: bool) -> tuple[dict[str, Any] | None, ExitCode]:
    """Have the answers of a run judged, and say where the report is; the outcome, or None where it was interrupted."""
    from trainer.workshop.judge.judge import make_plan

    with make_plan(run, settings) as plan, Interruption() as interruption:
        show_plan(plan.facts(), plan.quote)
        if plan.quote.bills:
            agree(f"have {settings.model} judge these answers?", yes)
        return _judged(plan, interruption)


def _judged(plan: "JudgePlan", interruption: Interruption) -> tuple[dict[str, Any] | None, ExitCode]:
    from trainer.workshop.asking.sender import Unfinished
    from trainer.workshop.judge.judge import judge

    stop = threading.Event()

    def end() -> None:
        stop.set()
        say("ending after the requests that are on their way; Ctrl-C again leaves them, paid or not")

    try:
        with interruption.calls(end), _shown(plan) as show:
            page, outcome = judge(plan, plan.quote, show, stop)
    except Unfinished as unfinished:
        if interruption.signal is None:
            raise
        say(str(unfinished))
        return None, interruption.exit_code
    except KeyboardInterrupt:
        say("left at once: requests that were on their way may be paid and lost; the same command resumes")
        return None, interruption.exit_code
    say(f"report  {page}")
    return outcome, ExitCode.DONE


@contextmanager
def _shown(plan: "JudgePlan") -> "Iterator[Callable[[JudgeProgress], None]]":
    with err.status("asking …") as status:

        def show(now: "JudgeProgress") -> None:
            money = "" if plan.prices.is_free else " cost not known" if now.cost is None else f" {now.cost:,.4f} USD"
            failed = f", {now.failures:,} failed" if now.failures else ""
            status.update(escape(f"{now.done:,} of {now.total:,} pairs{failed}{money}"))

        yield show
