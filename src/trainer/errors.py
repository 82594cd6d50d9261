"""Everything that can go wrong for a user, and the exit code each kind ends with.

TrainerError
├── ConfigError         a setting is wrong, missing or cannot be honoured
├── DataError           a row of a data file cannot be trained as written
├── MissingDependency   an optional package is needed and not installed
├── BackendError        the place where a run executes refused or failed
├── TrainingError       the run itself failed
└── ParityError         what would be exported or served is not what was trained

A message reads `<place>: <what was found>, <what is accepted>; <what to do>`: lower case, values quoted with
repr. One error carries every problem of its kind, so that a user corrects a file once and not once per mistake.
"""

import difflib
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

SHOWN_PROBLEMS = 20


class ExitCode(IntEnum):
    """What a command's exit status says to the shell, to CI and to a job scheduler."""

    DONE = 0
    RUN_FAILED = 1
    BAD_INPUT = 2
    RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h: "try again later"
    INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class TrainerError(Exception):
    """A mistake or failure that is told to the user in words, without a traceback."""

    exit_code = ExitCode.RUN_FAILED

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        shown = list(self.problems[:SHOWN_PROBLEMS])
        if hidden := len(self.problems) - len(shown):
            shown.append(f"… and {hidden} more")
        return "\n".join(shown)


class ConfigError(TrainerError, ValueError):
    """A setting is wrong, missing, or cannot be honoured by the chosen backend."""

    exit_code = ExitCode.BAD_INPUT


class DataError(TrainerError, ValueError):
    """A data file or one of its rows cannot be trained as written."""

    exit_code = ExitCode.BAD_INPUT


class MissingDependency(TrainerError, ImportError):
    """An optional package is needed and not installed; the message names the command that installs it."""

    exit_code = ExitCode.BAD_INPUT


class BackendError(TrainerError, RuntimeError):
    """The place where a run executes refused a request or could not be reached."""


class TrainingError(TrainerError, RuntimeError):
    """The run failed after it had started; its newest complete checkpoint is kept."""


class ParityError(TrainerError, RuntimeError):
    """What would be exported or served is not what was trained; the message holds the numbers."""


class Attempts:
    """Steps that can be taken where others have failed, so that a user hears at once of all that is wrong."""

    def __init__(self) -> None:
        self.errors: list[TrainerError] = []

    def make(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What the step returns; None where it fails, and its error is kept."""
        try:
            return step(*args, **kwargs)
        except TrainerError as error:
            self.errors.append(error)
            return None

    def end(self) -> None:
        """Raises: the error, if one was kept, else one of all problems: a ConfigError where they differ in kind."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            kinds = {type(error) for error in self.errors}
            kind = kinds.pop() if len(kinds) == 1 else ConfigError
            # Rows may be wrong by the thousand, and only the first problems are shown.
            ordered = sorted(self.errors, key=lambda error: isinstance(error, DataError))
            raise kind(*(problem for error in ordered for problem in error.problems))


def quoted(value: object, limit: int = 60) -> str:
    """`repr`, shortened to `limit` characters: how a found value is shown."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def similar(word: str, known: Iterable[str], shown: Sequence[str] = ()) -> str:
    """`, did you mean X?` for the nearest known word (or the words in `shown`), or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean {' or '.join(shown or near)}?" if near else ""
