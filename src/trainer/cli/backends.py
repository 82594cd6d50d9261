"""Steps that commands share around a backend: choose it, show a plan, ask before spending, bring a run up to date."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from trainer.cli.console import clean, err, loading, out, say
from trainer.errors import BackendError, ConfigError
from trainer.runs import Run
from trainer.runs.lifecycle import last_output
from trainer.runs.queue import place_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainer.backends.contract import Backend, Check, Deploys
    from trainer.backends.quote import Quote
    from trainer.config.schema import RunConfig

ACTIVE = ("validating_files", "queued", "running")
CAUTIONS = ("held out", "length", "warning", "contradiction")  # titles that stand out


def backend_of(kind: str, asks: bool = True) -> "Backend[Any]":
    """The backend of a kind, which shows its progress in this terminal; without `asks` to read a run's files alone."""
    from trainer.backends.choose import choose
    from trainer.backends.contract import Screen

    return choose(kind, Screen(err, loading), asks)


def service_for(run: Run, config: Path | None) -> tuple["Deploys[Any]", "RunConfig"]:
    """Choose the service for a deployment: the config's, else the one where the run was trained.

    Raises: ConfigError, for a run of this machine without a config.
    """
    from trainer.backends.choose import choose_service
    from trainer.config.load import load_config

    settings = load_config(config) if config else run.config()
    service = choose_service(settings.backend.kind)
    if service is None:
        raise ConfigError(
            f"run {run.name!r}: was trained on this machine, expected --config with a config whose backend.kind is "
            "'azureml', to say where it goes; or serve it here: trainer serve RUN"
        )
    return service, settings


def show_plan(rows: "Sequence[tuple[str, str]]", quote: "Quote", checks: "Sequence[Check]" = ()) -> None:
    """Print the plan's facts and its price."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for title, text in rows:
        name = f"[yellow]{title}[/]" if title in CAUTIONS else escape(title)
        table.add_row(name, escape(clean(text)))
    err.print(table)
    if checks:
        looks = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        for check in checks:
            outcome = escape(check.outcome) if check.outcome == "ok" else f"[yellow]{escape(check.outcome)}[/]"
            looks.add_row(outcome, escape(check.what), escape(clean(check.found)))
        err.print("", looks, "", sep="\n")
    costs = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for number, line in enumerate(quote.lines() if quote.bills else ()):
        costs.add_row("cost" if number == 0 else "", escape(clean(line)))
    if costs.row_count:
        err.print(costs)


def print_last_output(run: Run) -> None:
    """Print the last lines of a failed run's output."""
    if lines := last_output(run):
        out.print("\n[bold]its output ended with[/]")
        for line in lines:
            out.print(clean(f"  {line}"), markup=False)


def agree(question: str, yes: bool) -> None:
    """Ask before something that costs money or deletes. Raises: ConfigError, when nobody can be asked, or says no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("nobody can be asked whether to do this, expected --yes; add it to agree")
    if not typer.confirm(question, err=True):
        raise ConfigError("nothing was done: it was not agreed to")


def print_verdict(ready: str, done: str, doubts: "Sequence[str]") -> None:
    """Print the last line of a check; what contradicts itself has to be settled first."""
    if doubts:
        out.print(f"[yellow]{ready} once a contradiction is settled: it asks in a terminal[/]; {done}")
    else:
        out.print(f"[green]{ready}[/]: {done}")


def settle(doubts: "Sequence[str]") -> None:
    """Ask whether to submit in spite of what contradicts itself, which --yes does not answer: it agrees to a price.

    Raises: ConfigError, when nobody can be asked, or says no.
    """
    if not doubts:
        return
    if not sys.stdin.isatty():
        raise ConfigError(*doubts)
    if not typer.confirm("submit it all the same?", err=True):
        raise ConfigError("nothing was done: it was not agreed to")


def refreshed(run: Run, attended: bool = False) -> Run:
    """The run, brought up to date if its job may have moved; where that fails it says so, and the files serve.

    `attended`: someone waits for its end.
    """
    if run.state in (*ACTIVE, "paused") and place_of(run.path) is None:
        from trainer.backends.http import hurried

        try:
            if attended:
                backend_of(run.backend).attend(run, say)
            else:
                with hurried():
                    backend_of(run.backend).refresh(run, say)
        except (BackendError, ConfigError) as error:
            err.print(f"[yellow]as of {run.status().get('updated_at', 'its start')}[/]: {escape(clean(str(error)))}")
    return run
