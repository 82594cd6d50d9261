"""What commands share around a backend: choose it, show a plan, ask before money is spent, bring a run up to date."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from trainer.cli.console import clean, err, loading, say
from trainer.errors import BackendError, ConfigError
from trainer.runs import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainer.backends.contract import Backend, Deploys
    from trainer.backends.quote import Quote
    from trainer.config.schema import RunConfig

ACTIVE = ("validating_files", "queued", "running")
CAUTIONS = ("held out", "length", "warning")  # titles that stand out


def backend_of(kind: str) -> "Backend[Any]":
    """The backend of a kind, which shows its progress in this terminal."""
    from trainer.backends.choose import choose
    from trainer.backends.contract import Screen

    return choose(kind, Screen(err, loading))


def service_for(run: Run, config: Path | None) -> tuple["Deploys[Any]", "RunConfig"]:
    """Where a run is to be deployed: where the config says, else where it was trained.

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


def show_plan(rows: "Sequence[tuple[str, str]]", quote: "Quote") -> None:
    """What is about to happen and what it costs."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for title, text in rows:
        name = f"[yellow]{title}[/]" if title in CAUTIONS else escape(title)
        table.add_row(name, escape(clean(text)))
    for number, line in enumerate(quote.lines() if quote.bills else ()):
        table.add_row("cost" if number == 0 else "", escape(clean(line)))
    err.print(table)


def agree(question: str, yes: bool) -> None:
    """Ask before something that costs money or deletes. Raises: ConfigError, when nobody can be asked, or says no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("nobody can be asked whether to do this, expected --yes; add it to agree")
    if not typer.confirm(question, err=True):
        raise ConfigError("nothing was done: it was not agreed to")


def refreshed(run: Run) -> Run:
    """The run, brought up to date if its job may have moved; where that fails it says so, and the files serve."""
    if run.state in (*ACTIVE, "paused"):
        from trainer.backends.http import hurried

        try:
            with hurried():
                backend_of(run.backend).refresh(run, say)
        except (BackendError, ConfigError) as error:
            err.print(f"[yellow]as of {run.status().get('updated_at', 'its start')}[/]: {escape(clean(str(error)))}")
    return run
