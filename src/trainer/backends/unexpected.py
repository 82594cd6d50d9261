"""Errors that are not ours, those of libraries and of the operating system: in words, and without secrets."""

import os
import re

from trainer.errors import ConfigError, TrainerError, TrainingError, file_error
from trainer.extras import not_installed

SHOWN = "run it again with --debug to see where it comes from, which a report of it needs"
MAX_CHARS = 600  # of another program's words
MIN_SECRET_CHARS = 8
_SECRET_VARIABLE = re.compile(r"(?i)(?:key|token|secret|password|passwd|sas|connection_string)$")
# What opens something wherever it stands: in a header, in the query of a signed URL, in a connection string.
_SECRETS = (
    re.compile(r"(?i)(?P<name>\b(?:sig|sharedaccesssignature)(?:=|%3d))(?P<value>[^\s\"'&;,<>)}\]]{6,})"),
    re.compile(r"(?i)(?P<name>\bbearer\s+)(?P<value>[\w.~+/=-]{12,})"),
    re.compile(r"(?P<name>://[^\s/@:]{0,100}:)(?P<value>[^\s/@]{1,200})(?=@)"),
    re.compile(
        r"(?i)(?P<name>\b[a-z_-]{0,40}(?:api[-_]?key|accountkey|accesskey|secret|password|token)[\"']?\s?[=:]\s?[\"']?)"
        r"(?P<value>(?=[^\s]{0,40}[0-9])[^\s\"'&;,<>)}\]]{12,})"
    ),
)


def in_words(error: Exception, doing: str, shown: str = SHOWN) -> TrainerError:
    """The error as one of ours: `doing: what happened; what to do`. An error with words of its own keeps them.

    `shown` says where one finds out more about an unknown one.
    """
    from trainer.backends.http import failure_of, is_failure, refusal

    if isinstance(error, ModuleNotFoundError) and (needed := not_installed(error, doing)):
        return needed
    if isinstance(error, MemoryError):
        return TrainingError(f"{doing}: no memory is left; end other programs, or take a machine with more")
    if isinstance(error, UnicodeDecodeError):
        return ConfigError(
            f"{doing}: a file holds bytes that are not {error.encoding} (the first at {error.start:,}), expected UTF-8 "
            "text; save it as UTF-8; --debug shows which it is"
        )
    if is_failure(error):
        return refusal(failure_of(error), doing)
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        known = file_error(error)
        return type(known)(f"{doing}: {known}")
    words = " ".join(str(error).split())
    words = words if len(words) <= MAX_CHARS else f"{words[: MAX_CHARS - 1]}…"
    return TrainingError(f"{doing}: unexpected {type(error).__name__}{': ' * bool(words)}{words}; {shown}")


def without_secrets(text: str) -> str:
    """The text without keys, tokens and signatures, those of this process's environment among them."""
    from trainer.data.rules.private_text import find_private

    own = {value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name)}
    found = {found.value for found in find_private(text) if found.code == "SECRET"}
    for secret in sorted(own | found, key=len, reverse=True):
        if len(secret) >= MIN_SECRET_CHARS:
            text = text.replace(secret, "…")
    for shape in _SECRETS:
        text = shape.sub(r"\g<name>…", text)
    return text
