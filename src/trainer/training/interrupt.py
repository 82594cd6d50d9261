"""Ctrl-C and SIGTERM end a run at the next step boundary, with a checkpoint; a second one ends it at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from trainer.errors import ExitCode

EXIT_CODES: dict[int, ExitCode] = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.RESUMABLE}


@contextmanager
def on_interrupt(stop: Callable[[int], None]) -> Iterator[None]:
    """While the block runs, call `stop` with the number of the first signal; a second raises KeyboardInterrupt."""
    before: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        stop(number)
        for each in EXIT_CODES:
            signal.signal(each, signal.default_int_handler)

    for number in EXIT_CODES:
        before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
