"""Errors while pages are served: a sentence for the page, and on the terminal the place of a mistake of ours."""

import sys
import traceback

from trainer.backends.unexpected import in_words, without_secrets
from trainer.data.quoting import printable
from trainer.errors import TrainerError

SHOWN = "the terminal of the server shows where it comes from, which a report of it needs"


def told(error: Exception, doing: str) -> str:
    """Words for a page, without secrets. An error that is none of ours is reported, too."""
    if not isinstance(error, TrainerError):
        report(error)
        error = in_words(error, doing, SHOWN)
    return without_secrets(str(error))


def report(error: Exception) -> None:
    """Write an error to the terminal, without secrets and control sequences: ours as its sentence, others in full."""
    words = str(error) if isinstance(error, TrainerError) else "".join(traceback.format_exception(error))
    text = without_secrets(words)
    sys.stderr.write("".join(f"{printable(line)}\n" for line in text.splitlines()))
    sys.stderr.flush()
