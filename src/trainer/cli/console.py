"""Output of commands, and their end after a mistake: in words and with an exit code."""

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from itertools import takewhile
from pathlib import Path
from typing import Annotated, NoReturn, ParamSpec

import typer
from rich.console import Console
from rich.markup import escape

from trainer import __version__
from trainer.errors import ConfigError, ExitCode, TrainerError
from trainer.runs.files import expanded

P = ParamSpec("P")

PACKAGE = "azure-llm-trainer"
PIPE_WIDTH = 120  # columns where the output is no terminal
MIN_BYTES_FOR_A_BAR = 20_000_000  # about two seconds

out = Console(soft_wrap=True, highlight=False)  # results
err = Console(stderr=True, soft_wrap=True, highlight=False)  # everything said on the way
for console in (out, err):
    console.quiet = os.environ.get("RANK", "0") != "0"  # of the processes that torchrun starts, the first one speaks
    if not console.is_terminal:
        console.width = PIPE_WIDTH

Debug = Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")]
Root = Annotated[
    Path,
    typer.Option("--root", envvar="TRAINER_RUNS", callback=expanded, help="The folder that holds the runs."),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print_as_is(f"{PACKAGE} {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and leave.")
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name or folder.")]


class Format(StrEnum):
    """Form of a result on standard output."""

    text = "text"
    json = "json"


Output = Annotated[Format, typer.Option("--format", help="For people, or as JSON for machines.")]


class BackendName(StrEnum):
    """Backend that executes a run, and whose rules apply."""

    local = "local"
    azureml = "azureml"
    openai = "openai"


def say(message: str) -> None:
    """A line for a person; standard output is kept for results."""
    err.print(clean(message), markup=False)


class Notes:
    """Says each line, and keeps it for a document."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, message: str) -> None:
        self.lines.append(message)
        say(message)


def loading(what: str = "torch and transformers") -> AbstractContextManager[object]:
    """In a terminal, a line for the seconds that this takes; it is gone afterwards."""
    return err.status(f"loading {what} …")


def print_as_is(text: str) -> None:
    """A result that is no text of ours: JSON, Markdown, a picture."""
    if not out.quiet:
        out.file.write(f"{text}\n")
        out.file.flush()


def print_rows(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print aligned columns, a row a line, which only a narrow terminal wraps."""
    table = [titles, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.print(line.rstrip(), markup=False)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int], Callable[[int], None] | None]]:
    """Start a progress bar in a terminal for each stage of some work, by name and size; outside of one, none."""
    if not err.is_terminal:
        yield lambda name, size: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:

        def stage(name: str, size: int) -> Callable[[int], None]:
            task = progress.add_task(name, total=size)
            return lambda done: progress.update(task, completed=done)

        yield stage


@contextmanager
def reading_bar(files: Sequence[Path]) -> Iterator[Callable[[int], None] | None]:
    """A bar in the terminal while large files are read, fed with the number of bytes so far; else None."""
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
    """End a command with its exit code; print a mistake without a traceback, unless `debug` is given."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = function(*args, **kwargs)
        except TrainerError as error:
            _exit_with(error, error, bool(kwargs.get("debug")))
        except typer.Abort as error:  # at a question; typer makes the same of Ctrl-C and of an end of input
            if isinstance(error.__context__, EOFError):
                nobody = ConfigError("nobody answers the question, expected y or n; add --yes to agree")
                _exit_with(nobody, error, bool(kwargs.get("debug")))
            err.print("interrupted")
            sys.exit(ExitCode.INTERRUPTED)
        except KeyboardInterrupt:
            err.print("interrupted")
            sys.exit(ExitCode.INTERRUPTED)
        except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
            sys.stdout = None  # else Python flushes it once more at exit
            sys.exit(ExitCode.DONE)
        except Exception as error:
            from trainer.backends.unexpected import in_words

            _exit_with(in_words(error, _doing()), error, bool(kwargs.get("debug")))
        sys.exit(code or ExitCode.DONE)

    return wrapped


def _exit_with(shown: TrainerError, error: Exception, debug: bool) -> NoReturn:
    """Print what went wrong, with `debug` also where, and end the program with its code."""
    from trainer.backends.unexpected import without_secrets

    if debug:
        err.print(clean(without_secrets("".join(traceback.format_exception(error)))), markup=False)
    for line in without_secrets(str(shown)).splitlines():
        err.print(f"[bold red]error:[/] {escape(clean(line))}")
    sys.exit(shown.exit_code)


def _doing() -> str:
    """The command as its user typed it, such as `trainer data check`."""
    program, *words = sys.argv
    name = Path(program).name.replace("__main__.py", "trainer")
    deepest = 0 if name == "train" else 2 if words[:1] in (["data"], ["config"], ["queue"]) else 1
    return " ".join([name, *takewhile(lambda word: not word.startswith("-"), words[:deepest])])


def clean(text: str) -> str:
    """Text from files and users without control sequences, which could rewrite the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)
