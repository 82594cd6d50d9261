"""Commands that stop a run, wherever its process is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.console import Debug, Root, RunName, command, say
from trainer.runs import control as runs_control
from trainer.runs import find_run

if TYPE_CHECKING:
    from trainer.backends.remote import RemoteBackend

Wait = Annotated[float, typer.Option("--wait", metavar="SECONDS", min=0, help="How long to wait until it has stopped.")]


@command
def pause(run: RunName, wait: Wait = 60.0, root: Root = Path("runs"), debug: Debug = False) -> None:
    """Stop a run after its current step, with a checkpoint; trainer resume RUN goes on."""
    found = find_run(run, root)
    if found.backend != "local":
        _remote(found.backend).pause(found, say)
    elif runs_control.pause(found, wait):
        say(f"{found.name} is {found.state}; go on with: trainer resume {found.path}")
    else:
        say(f"{found.name} was asked to stop and has not finished its step yet; see: trainer runs")


@command
def cancel(run: RunName, wait: Wait = 60.0, root: Root = Path("runs"), debug: Debug = False) -> None:
    """End a run for good after its current step; its files stay until trainer delete RUN."""
    found = find_run(run, root)
    if found.backend != "local":
        _remote(found.backend).cancel(found, say)
    elif runs_control.cancel(found, wait):
        say(f"{found.name} is {found.state}; delete its files with: trainer delete {found.path}")
    else:
        say(f"{found.name} was asked to end and has not finished its step yet; see: trainer runs")


def _remote(kind: str) -> "RemoteBackend":
    from trainer.backends.remote import remote_backend

    return remote_backend(kind)
