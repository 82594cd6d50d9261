"""Pages for the browser where a user names the file: one of ours is replaced, any other file is not."""

from pathlib import Path

from trainer.errors import ConfigError
from trainer.runs.files import write_whole

GENERATOR = b'<meta name="generator" content="azure-llm-trainer">'
EARLIER = b"content=\"default-src 'none'; style-src 'unsafe-inline'"  # how pages began before they named their maker
HEAD_BYTES = 1000


def refuse_other_file(option: str, file: Path) -> None:
    """Raises: ConfigError, when something else than a page of ours is there."""
    if file.is_dir() or (file.exists() and not file.is_file()):
        raise ConfigError(f"{option}: {str(file)!r} is no regular file, expected a page's file; choose another name")
    if file.exists() and not _is_ours(file):
        raise ConfigError(
            f"{option}: {str(file)!r} exists and is no page of this program, expected a new file; "
            "choose another name or remove it"
        )


def write_page(option: str, file: Path, page: str) -> None:
    """Write a page whole. Raises: ConfigError, when another file is there or it cannot be written."""
    refuse_other_file(option, file)
    try:
        write_whole(file, page)
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be written: {error.strerror}, expected a file in a folder that exists"
        ) from None


def _is_ours(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
    except OSError:
        return False
    return head.startswith(b"<!doctype html>") and (GENERATOR in head or EARLIER in head)
