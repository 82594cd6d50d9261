"""`trainer queue`: the runs that wait on this machine, their order, and the process that starts them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.console import Debug, Format, Output, Root, RunName, command, print_as_is, print_rows, say
from trainer.errors import ConfigError, ExitCode
from trainer.runs import find_run
from trainer.runs.lifecycle import withdraw
from trainer.runs.process import visible_gpus
from trainer.runs.queue import Queue, QueueInUse
from trainer.training.interrupt import Interruption

if TYPE_CHECKING:
    from trainer.cli.documents.queue import QueueEntry

app = typer.Typer(help="List the runs that wait on this machine; change their order, start them.")
NOTHING_WAITS = "no run waits in {root}; put one into the queue with: train --config FILE --queue"
ENDED_BY_TERMINAL = "the queue stops here; what was started runs on; continue with: trainer queue work"


@app.callback(invoke_without_command=True)
def queue(
    context: typer.Context, root: Root = Path("runs"), output: Output = Format.text, debug: Debug = False
) -> None:
    """List the runs that wait on this machine, and those that its queue has started.

    train --config FILE --queue puts a run into the queue. Runs start strictly in this order.
    """
    if context.invoked_subcommand is None:
        _list(root=root, output=output, debug=debug)
    else:
        _refuse_options(context, debug=debug)


@command
def _list(root: Path, output: Format, debug: bool) -> None:
    from trainer.cli.documents.queue import queue_list

    listed = queue_list(Queue(root), visible_gpus())
    if output is Format.json:
        listed.print()
        return
    if not listed.entries:
        say(NOTHING_WAITS.format(root=root))
        return
    print_rows(("place", "run", "state", "GPUs", "added"), map(_row, listed.entries))
    if listed.worker_pid is None:
        say(f"no worker starts them; start one with: trainer queue work --root {root}")
    else:
        say(f"process {listed.worker_pid} starts them")


def _row(entry: "QueueEntry") -> tuple[str, ...]:
    gpus = ", ".join(entry.gpus or ()) if entry.gpus is not None else str(entry.num_gpus or "all")
    return (str(entry.place or ""), entry.run, entry.state, gpus, entry.added_at[:16].replace("T", " "))


def _refuse_options(context: typer.Context, debug: bool) -> None:
    @command
    def refuse(debug: bool) -> None:
        raise ConfigError(
            f"trainer queue: an option stands before {context.invoked_subcommand!r}, expected none there; put it behind"
        )

    given = (context.get_parameter_source(name) for name in ("root", "output", "debug"))
    if any(source is not None and source.name == "COMMANDLINE" for source in given):
        refuse(debug=debug)


@app.command()
@command
def work(root: Root = Path("runs"), debug: Debug = False) -> int:
    """Start the runs of the queue in their order, until it is empty.

    train --queue does this in the background. Ctrl-C ends only this command (130), and SIGTERM (75): a run that was
    started continues, and the next worker takes it over. After a reboot a run whose process is gone is resumed, once.
    """
    from trainer.backends.worker import work as start_all

    if not Queue(root).entries():  # nothing is created where a folder's name was mistyped
        say(NOTHING_WAITS.format(root=root))
        return ExitCode.DONE
    with Interruption() as interruption:
        try:
            start_all(root, say)
        except QueueInUse as error:
            say(str(error))
        except KeyboardInterrupt:
            say(f"{ENDED_BY_TERMINAL} --root {root}")
            return interruption.exit_code
    return ExitCode.DONE


@app.command()
@command
def move(
    run: RunName,
    place: Annotated[int, typer.Argument(metavar="PLACE", help="Its new place among those that wait; 1 is next.")],
    root: Root = Path("runs"),
    debug: Debug = False,
) -> None:
    """Give a waiting run another place."""
    found = find_run(run, root)
    Queue(found.path.parent).move(found.name, place)
    say(f"{found.name} has place {place}")


@app.command()
@command
def remove(run: RunName, root: Root = Path("runs"), debug: Debug = False) -> None:
    """Take a waiting run out of the queue; it can be resumed, or put into the queue again."""
    found = find_run(run, root)
    if not withdraw(found, "paused"):
        Queue(found.path.parent).remove(found.name)
    say(f"{found.name} is out of the queue and {found.state}; put it there again: trainer resume {found.path} --queue")


@app.command()
@command
def unit(root: Root = Path("runs"), debug: Debug = False) -> None:
    """Print a systemd user unit that works the queue, also after a reboot; standard error says where to put it."""
    from trainer.cli.systemd import NAME, unit_of

    print_as_is(unit_of(root.absolute()).rstrip("\n"))
    say(f"write it to ~/.config/systemd/user/{NAME}, then: systemctl --user enable --now {NAME}")
    say("to have it work without a login: loginctl enable-linger")
