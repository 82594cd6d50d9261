"""Waiting for a slow machine: with a limit in tests; for a person without one, and never in silence."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

SIGN_SECONDS = 10.0
_person: Callable[[str], None] | None = None


@contextmanager
def attended(show: Callable[[str], None]) -> Iterator[None]:
    """Wait without limits while the block runs, with a line to `show` every ten seconds."""
    global _person
    before, _person = _person, show
    try:
        yield
    finally:
        _person = before


def is_attended() -> bool:
    """True while a person waits."""
    return _person is not None


def until(condition: Callable[[], object], what: str, seconds: float, pause: float = 0.1) -> None:
    """Wait for a condition. Raises: AssertionError, after `seconds`, unless a person waits."""
    started, signs = time.monotonic(), 0
    while not condition():
        elapsed = time.monotonic() - started
        if _person is None:
            assert elapsed < seconds, f"{what}: did not happen within {seconds:.0f} s"
        elif elapsed >= (signs + 1) * SIGN_SECONDS:
            signs += 1
            _person(f"  ... {what}: {elapsed:.0f} s so far")
        time.sleep(pause)


def output_of(stream: IO[str], what: str, seconds: float, tell: Callable[[str], None]) -> str:
    """All lines of a stream to its end; `tell` gets each as it comes. Raises: as `until`."""
    lines: list[str] = []

    def read() -> None:
        for line in stream:
            lines.append(line)
            tell(line.rstrip("\n"))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    until(lambda: not reader.is_alive(), what, seconds)
    return "".join(lines)


def installed(command: Sequence[Any], what: str, seconds: float, folder: Path | None = None) -> str | None:
    """Run an installer to its end; the end of what it printed where it failed, None where it did not.

    It ends by itself where its index is out of reach. Raises: as `until`.
    """
    process = subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        output = output_of(process.stdout, f"installing {what}", seconds, lambda line: None)
        return None if process.wait() == 0 else output[-500:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
