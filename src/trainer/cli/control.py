"""Commands that stop a run, wherever it executes."""

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.backends import backend_of
from trainer.cli.console import Debug, Root, RunName, command, say
from trainer.runs import find_run

Wait = Annotated[float, typer.Option("--wait", metavar="SECONDS", min=0, help="How long to wait until it has stopped.")]


@command
def pause(run: RunName, wait: Wait = 60.0, root: Root = Path("runs"), debug: Debug = False) -> None:
    """Stop a run after its current step, with a checkpoint; trainer resume RUN resumes it."""
    found = find_run(run, root)
    backend_of(found.backend).pause(found, say, wait)


@command
def cancel(run: RunName, wait: Wait = 60.0, root: Root = Path("runs"), debug: Debug = False) -> None:
    """End a run for good after its current step; its files stay until trainer delete RUN."""
    found = find_run(run, root)
    backend_of(found.backend).cancel(found, say, wait)
