"""Where commands print, and how a mistake ends one: in words and with an exit code."""

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn, ParamSpec

import typer
from rich.console import Console
from rich.markup import escape

from trainer.errors import ConfigError, ExitCode, TrainerError

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
Root = Annotated[Path, typer.Option("--root", envvar="TRAINER_RUNS", help="The folder that holds the runs.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print_as_is(f"{PACKAGE} {metadata.version(PACKAGE)}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and leave.")
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name or folder.")]


class Format(StrEnum):
    """How a result is printed."""

    text = "text"
    json = "json"


Output = Annotated[Format, typer.Option("--format", help="For people, or as JSON for machines.")]


class BackendName(StrEnum):
    """Where a run executes, and whose rules apply."""

    local = "local"
    azureml = "azureml"
    openai = "openai"


def say(message: str) -> None:
    """A line for a person; standard output is kept for results."""
    err.print(clean(message), markup=False)


class Notes:
    """Says each line, and keeps it for a document."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __call__(self, message: str) -> None:
        self.told.append(message)
        say(message)


def loading(what: str = "torch and transformers") -> AbstractContextManager[object]:
    """In a terminal, a line for the seconds that this takes; it is gone afterwards."""
    return err.status(f"loading {what} …")


def print_as_is(text: str) -> None:
    """A result that is no text of ours: JSON, Markdown, a picture."""
    if not out.quiet:
        out.file.write(f"{text}\n")
        out.file.flush()


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
            _tell(error, error, bool(kwargs.get("debug")))
        except typer.Abort as error:  # at a question; typer makes the same of Ctrl-C and of an end of input
            if isinstance(error.__context__, EOFError):
                nobody = ConfigError("nobody answers the question, expected y or n; add --yes to agree")
                _tell(nobody, error, bool(kwargs.get("debug")))
            err.print("interrupted")
            sys.exit(ExitCode.INTERRUPTED)
        except KeyboardInterrupt:
            err.print("interrupted")
            sys.exit(ExitCode.INTERRUPTED)
        except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
            sys.stdout = None  # else Python flushes it once more at exit
            sys.exit(ExitCode.DONE)
        except Exception as error:
            from trainer.cli.unexpected import in_words

            _tell(in_words(error, _doing()), error, bool(kwargs.get("debug")))
        sys.exit(code or ExitCode.DONE)

    return wrapped


def _tell(told: TrainerError, error: Exception, debug: bool) -> NoReturn:
    """Print what went wrong, with `debug` also where, and end the program with its code."""
    from trainer.cli.unexpected import without_secrets

    if debug:
        err.print(clean(without_secrets("".join(traceback.format_exception(error)))), markup=False)
    for line in without_secrets(str(told)).splitlines():
        err.print(f"[bold red]error:[/] {escape(clean(line))}")
    sys.exit(told.exit_code)


def _doing() -> str:
    """The command as its user typed it, such as `trainer data check`."""
    program, *words = sys.argv
    name = Path(program).name.replace("__main__.py", "trainer")
    deepest = 0 if name == "train" else 2 if words[:1] in (["data"], ["config"]) else 1
    return " ".join([name, *words[:deepest]])


def clean(text: str) -> str:
    """Text from files and users without control sequences, which could rewrite the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)
