"""Locks of the kernel: they end with their last process, however it ends, and a child process may inherit one.

For processes of one machine; `lock.py` has those of a run, which machines may share.
"""

import errno
import fcntl
import os
import time
from pathlib import Path

from trainer.errors import ConfigError

PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.01


def take(path: Path) -> int | None:
    """A handle that holds the file's lock until every copy of it is closed; None where another process holds it.

    Raises: OSError.
    """
    return _taken(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), fcntl.LOCK_EX)


def wait_for(path: Path) -> int:
    """`take`, for a lock that others hold for milliseconds. Raises: OSError; ConfigError, when one never lets go."""
    until = time.monotonic() + PATIENCE_SECONDS
    while (handle := take(path)) is None:
        if time.monotonic() > until:
            raise ConfigError(
                f"{path}: another process has held it for {PATIENCE_SECONDS:.0f} s, expected milliseconds; "
                "look for one that is suspended, then run the same command again"
            )
        time.sleep(POLL_SECONDS)
    return handle


def share(path: Path) -> int:
    """A handle that holds the file's lock beside others that share it. Raises: OSError."""
    while (handle := _taken(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), fcntl.LOCK_SH)) is None:
        time.sleep(POLL_SECONDS)  # someone asks
    return handle


def is_shared(path: Path) -> bool:
    """True while a process shares the file's lock; this asks by holding it for a moment. Raises: OSError."""
    try:
        handle = _taken(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)
    except FileNotFoundError:
        return False
    if handle is not None:
        os.close(handle)
    return handle is None


def is_taken(path: Path) -> bool:
    """True while a process holds the file's lock; this asks by holding it for a moment. Raises: OSError."""
    try:
        handle = _taken(os.open(path, os.O_RDONLY), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    if handle is not None:
        os.close(handle)
    return handle is None


def _taken(handle: int, kind: int) -> int | None:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            return None
        raise
    return handle
