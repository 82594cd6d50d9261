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
import errno
import os
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

SHOWN_PROBLEMS = 20


class ExitCode(IntEnum):
    """Exit status of a command, for the shell, CI and a job scheduler."""

    DONE = 0
    RUN_FAILED = 1
    BAD_INPUT = 2
    GATE_FAILED = 3  # the work is done, and --gate does not hold: nothing to try again
    RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h: "try again later"
    INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class TrainerError(Exception):
    """A mistake or failure that the user sees in words, without a traceback."""

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
    """Refusal to export or serve another model than the trained one; the message holds the numbers."""


class Attempts:
    """Steps that can be taken where others have failed, so that a user hears at once of all that is wrong."""

    def __init__(self) -> None:
        self.errors: list[TrainerError] = []

    def make(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Return the step's result; None where it fails, and keep its error."""
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


_ELSEWHERE = "change its rights, or choose another place"
# What to do after an error of the operating system.
_REMEDIES = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space",
    errno.EIO: "look at its disk or mount",
    errno.EMFILE: "raise the limit, for example: ulimit -n 4096",
    errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE,
    errno.EROFS: "choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "correct the path, or create it",
    errno.ENOTDIR: "a part of the path is a file: correct the path",
    errno.EISDIR: "name a file",
    errno.ELOOP: "its links lead in a circle: correct them",
}
_FAULTS_OF_THE_MACHINE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE})


def file_words(error: OSError, then: str = "run the same command again") -> str:
    """Say what happened in the operating system's words, and what to do; without the path."""
    return f"{error.strerror or error}; {_REMEDIES.get(error.errno or 0, 'put it right')}, then {then}"


def file_error(error: OSError, place: object = "") -> TrainerError:
    """An error of the operating system in words: a ConfigError for a path that cannot be, else a TrainingError.

    `place` is named where the error names no path: a full disk is noticed by a write, which knows none.
    """
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename or place)
    kind = ConfigError if error.errno in _REMEDIES.keys() - _FAULTS_OF_THE_MACHINE else TrainingError
    return kind(f"{name or 'a file'}: {file_words(error)}")


def quoted(value: object, limit: int = 60) -> str:
    """`repr`, shortened to `limit` characters: how a found value is shown."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def similar(word: str, known: Iterable[str], shown: Sequence[str] = ()) -> str:
    """`, did you mean X?` for the nearest known word (or the words in `shown`), or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean {' or '.join(shown or near)}?" if near else ""
