"""How a run ended."""

from dataclasses import dataclass

from trainer.errors import ExitCode


@dataclass(frozen=True, slots=True)
class Outcome:
    """A code for the shell and a sentence for people."""

    exit_code: ExitCode
    summary: str
