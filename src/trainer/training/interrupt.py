"""Ctrl-C, SIGTERM and SIGHUP end a run at the next step boundary, with a checkpoint; a second one ends it at once."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from trainer.errors import ExitCode

EXIT_CODES: dict[int, ExitCode] = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.RESUMABLE,
    signal.SIGHUP: ExitCode.RESUMABLE,
}


class Interruption:
    """While entered, a signal raises KeyboardInterrupt; the first one inside of `calls` calls its function instead."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._stop: Callable[[], None] | None = None
        self._before: dict[int, Any] = {}
        self._terminals = _terminals()

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of a process that stops without a result."""
        return ExitCode.RESUMABLE if self.signal is None else EXIT_CODES[self.signal]

    def __enter__(self) -> Self:
        heard = [number for number in EXIT_CODES if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
        self._before = {number: signal.signal(number, self._handle) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def calls(self, stop: Callable[[], None]) -> Iterator[None]:
        """While the block runs, the first signal calls `stop`, which ends the block at a good point."""
        self._stop = stop
        try:
            yield
        finally:
            self._stop = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave(self._terminals)
        if self.signal is None and self._stop is not None:
            self.signal = number
            self._stop()
            return
        self.signal = self.signal or number
        raise KeyboardInterrupt


def _terminals() -> list[int]:
    """The outputs that are a terminal; one that is gone would deny it."""
    return [stream.fileno() for stream in (sys.__stdout__, sys.__stderr__) if stream is not None and stream.isatty()]


def _leave(terminals: list[int]) -> None:
    """The terminal is gone, and printing to it would fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in terminals:
        os.dup2(nowhere, number)
    os.close(nowhere)
