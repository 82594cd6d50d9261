"""Runs that execute elsewhere: quote, ask, start, follow. Every backend is spoken to in the same verbs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from trainer.cli.console import Format, Notes, clean, err, out, say
from trainer.errors import BackendError, ConfigError, ExitCode
from trainer.runs import Run, create_run, find_or_adopt, refuse_existing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trainer.backends.quote import Quote
    from trainer.backends.remote import RemoteBackend
    from trainer.config.schema import RunConfig

ACTIVE = ("validating_files", "queued", "running")


def train_remotely(config: "RunConfig", check: bool, detach: bool, auto_resume: bool, yes: bool, output: Format) -> int:
    """Check and quote, and once that is agreed to, start the job and follow it."""
    from trainer.backends.quote import hold_cap
    from trainer.backends.remote import remote_backend

    if auto_resume and (existing := find_or_adopt(config)):
        return go_on(existing, detach, output)
    refuse_existing(config)
    backend = remote_backend(config.backend.kind)
    notes = Notes()
    plan = backend.check(config, notes)
    show_plan(plan.rows, plan.quote)
    hold_cap(plan.quote, config.backend.spend_cap)
    if check and output is Format.json:
        from trainer.cli.documents.of_plan import remote_check

        remote_check(plan, notes.told).print()
        return 0
    if check:
        if plan.text:
            out.print(plan.text, markup=False)
        out.print("[green]ready to train[/]: nothing has been created and nothing bills")
        return 0
    agree(f"start this run on {config.backend.kind}?", yes)
    run = create_run(plan.config)
    say(f"run {run.path}")
    return _begun(backend, run, detach, output, lambda: backend.launch(plan, run, say))


def go_on(run: Run, detach: bool, output: Format) -> int:
    """Take up a run again where its last command left it."""
    from trainer.backends.remote import remote_backend

    backend = remote_backend(run.backend)
    return _begun(backend, run, detach, output, lambda: backend.resume(run, say))


def _begun(backend: "RemoteBackend", run: Run, detach: bool, output: Format, begin: "Callable[[], None]") -> int:
    """Begin and follow. Ctrl-C may come when something bills already: what to do about it is said."""
    from trainer.runs.ledger import Ledger

    try:
        begin()
        code = _follow(backend, run, detach)
    except KeyboardInterrupt:
        if Ledger(run.path).billing():
            say(f"the job goes on; follow it: trainer logs {run.path} --follow\nend it: trainer cancel {run.path}")
        else:
            say(f"nothing bills; go on: train --resume {run.path}\nremove what is there: trainer delete {run.path}")
        return ExitCode.INTERRUPTED
    if output is Format.json:
        from trainer.cli.runs import print_run

        print_run(run)
    return code


def _follow(backend: "RemoteBackend", run: Run, detach: bool) -> int:
    if detach:
        say(f"the job runs on without this terminal\nfollow it: trainer logs {run.path} --follow")
        say(f"end it:    trainer cancel {run.path}")
        return 0
    outcome = backend.follow(run, say)
    say(outcome.summary)
    if outcome.exit_code == 0:
        for remark in run.remarks():
            say(remark)
        try_it = outcome.try_it or f"trainer chat {run.path}"
        say(f"look at it: trainer show {run.path}\ntry it:     {try_it}")
    return outcome.exit_code


def refreshed(run: Run) -> Run:
    """The run, brought up to date if its job may have moved; what cannot be reached is told and the files serve."""
    if run.backend != "local" and run.state in (*ACTIVE, "paused"):
        from trainer.backends.http import hurried
        from trainer.backends.remote import remote_backend

        try:
            with hurried():
                remote_backend(run.backend).refresh(run, say)
        except (BackendError, ConfigError) as error:
            err.print(f"[yellow]as of {run.status().get('updated_at', 'its start')}[/]: {escape(clean(str(error)))}")
    return run


def show_plan(rows: "Sequence[tuple[str, str]]", quote: "Quote") -> None:
    """What is about to happen and what it costs."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for title, text in rows:
        table.add_row(escape(title), escape(clean(text)))
    for number, line in enumerate(quote.lines()):
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


def backend_for(run: Run, config: Path | None) -> tuple["RemoteBackend", "RunConfig"]:
    """Where a run is to be deployed: where the config says, else where it was trained.

    Raises: ConfigError, for a run of this machine without a config.
    """
    from trainer.backends.remote import remote_backend
    from trainer.config.load import load_config

    settings = load_config(config) if config else run.config()
    if settings.backend.kind == "local":
        raise ConfigError(
            f"run {run.name!r}: was trained on this machine, expected --config with a config whose backend.kind is "
            "'azureml', to say where it goes; or serve it here: trainer serve RUN"
        )
    return remote_backend(settings.backend.kind), settings
