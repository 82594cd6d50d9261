"""A run's folder is renamed in one step and only then emptied; nothing is followed through links."""

import contextlib
import os
import re
import secrets
import shutil
import time
from pathlib import Path

from trainer.errors import ConfigError
from trainer.runs.ownership import is_run, refuse_removal

LEFT_BEHIND = re.compile(r"\.[A-Za-z0-9].*\.[0-9a-f]{8}\.(new|deleted)")
ABANDONED_SECONDS = 3600.0  # making a folder takes milliseconds


def remove(folder: Path) -> None:
    """Remove a run's folder and everything in it.

    Raises: ConfigError, when it is no run, holds anything else, or cannot be removed.
    """
    refuse_removal(folder)
    _refuse_read_only(folder)
    aside = folder.with_name(beside(folder.name, "deleted"))
    try:
        folder.rename(aside)
    except OSError as error:
        raise ConfigError(
            f"run {str(folder)!r}: cannot be deleted: {error.strerror}, expected write access to "
            f"{str(folder.parent)!r}; nothing was deleted"
        ) from None
    try:
        shutil.rmtree(aside)
    except OSError as error:
        if aside.exists():  # else another process has swept it up
            raise ConfigError(
                f"run {str(folder)!r}: what is left of it in {str(aside)!r} cannot be deleted: {error.strerror}; "
                "remove that by hand"
            ) from None
    sweep(folder.parent)


def beside(name: str, ending: str) -> str:
    """A name that no run can have, for a folder that is being made or removed."""
    return f".{name}.{secrets.token_hex(4)}.{ending}"


def sweep(root: Path) -> None:
    """Remove what a kill left of runs that were being made or removed."""
    with contextlib.suppress(OSError):
        for path in root.iterdir():
            if LEFT_BEHIND.fullmatch(path.name) and not path.is_symlink() and _is_abandoned(path):
                shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    if not is_run(folder):
        return False
    return folder.name.endswith(".deleted") or time.time() - folder.stat().st_mtime > ABANDONED_SECONDS


def _refuse_read_only(folder: Path) -> None:
    """Before anything is deleted, so that no half of a run is left. Raises: ConfigError."""
    for place, _, _ in os.walk(folder):
        if not os.access(place, os.W_OK | os.X_OK):
            raise ConfigError(
                f"run {str(folder)!r}: {place!r} is read-only, expected write access; nothing was deleted"
            )
