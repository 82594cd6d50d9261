"""Where commands print, and how a mistake ends one: in words and with an exit code."""

import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from rich.console import Console
from rich.markup import escape

from trainer.errors import ExitCode, TrainerError

P = ParamSpec("P")

PIPE_WIDTH = 120  # columns where the output is no terminal
MIN_BYTES_FOR_A_BAR = 20_000_000  # about two seconds

out = Console(soft_wrap=True, highlight=False)  # results
err = Console(stderr=True, soft_wrap=True, highlight=False)  # everything said on the way
for console in (out, err):
    console.quiet = os.environ.get("RANK", "0") != "0"  # of the processes that torchrun starts, the first one speaks
    if not console.is_terminal:
        console.width = PIPE_WIDTH

Debug = Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")]
Root = Annotated[Path, typer.Option("--root", envvar="TRAINER_RUNS", help="The folder that holds the runs.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name or folder.")]


class Format(StrEnum):
    """How a result is printed."""

    text = "text"
    json = "json"


def say(message: str) -> None:
    """A line for a person; standard output is kept for results."""
    err.print(clean(message), markup=False)


@contextmanager
def reading_bar(files: Sequence[Path]) -> Iterator[Callable[[int], None] | None]:
    """A bar in the terminal while large files are read, to be told the number of bytes so far; else None."""
    num_bytes = sum(file.stat().st_size for file in files if file.is_file())
    if num_bytes < MIN_BYTES_FOR_A_BAR or not err.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    with Progress(
        "reading", BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=err, transient=True
    ) as progress:
        task = progress.add_task("reading", total=num_bytes)
        yield lambda num_read: progress.update(task, completed=num_read)


def command(function: Callable[P, int | None]) -> Callable[P, None]:
    """End a command with its exit code; a mistake is told without a traceback, unless `debug` is given."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = function(*args, **kwargs)
        except TrainerError as error:
            if kwargs.get("debug"):
                err.print_exception()
            for line in str(error).splitlines():
                err.print(f"[bold red]error:[/] {escape(clean(line))}")
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            err.print("interrupted")
            sys.exit(ExitCode.INTERRUPTED)
        except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
            sys.stdout = None  # else Python flushes it once more at exit
            sys.exit(ExitCode.DONE)
        sys.exit(code or ExitCode.DONE)

    return wrapped


def clean(text: str) -> str:
    """Text from files and users without control sequences, which could rewrite the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)
