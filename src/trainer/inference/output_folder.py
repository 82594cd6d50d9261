"""A new folder that is whole or not there: built beside its place, flushed, and renamed."""

import os
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import ConfigError
from trainer.runs import files


def refuse_output(output: Path, num_bytes: int) -> None:
    """Raises: ConfigError, when `output` exists or cannot be made, or the disk is too full for `num_bytes`."""
    if output.exists() or output.is_symlink():
        raise ConfigError(f"--output: {str(output)!r} exists, expected a new folder; choose another or remove it")
    parent = files.nearest_folder(output)
    if not parent.is_dir():
        raise ConfigError(f"--output: {str(parent)!r} is no folder, expected one to write into; choose another")
    free = shutil.disk_usage(parent).free
    if free < num_bytes:
        raise ConfigError(
            f"--output: {str(parent)!r} has {free:,} bytes free, expected at least {num_bytes:,}; free some or choose "
            "another disk"
        )


@contextmanager
def built_beside(output: Path) -> Iterator[Path]:
    """A folder that becomes `output` when the block ends well, and is removed when it does not; so are those above it.

    Raises: ConfigError, when it cannot be written.
    """
    from safetensors import SafetensorError

    beside = output.with_name(f".{output.name}.{secrets.token_hex(4)}.tmp")
    try:
        with _sigterm_unwinds(), files.folders_above(output), _removed_at_the_end(beside):
            beside.mkdir(mode=0o700)  # a model can repeat the rows that it was trained on
            yield beside
            for file in filter(Path.is_file, beside.rglob("*")):
                _flush(file)
            beside.rename(output)
            files.flush_folder(output.absolute().parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--output: {str(output)!r} cannot be written: {reason}; nothing was left behind") from error


@contextmanager
def _removed_at_the_end(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """SIGTERM ends the process by an exception, so that what was begun is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
