"""How a run ended."""

from dataclasses import dataclass

from trainer.errors import ExitCode


@dataclass(frozen=True, slots=True)
class Outcome:
    """A code for the shell, a sentence for people, and how to try the model if not by talking to it at once."""

    exit_code: ExitCode
    summary: str
    try_it: str = ""  # a command
