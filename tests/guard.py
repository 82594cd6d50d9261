"""The end of pytest, however it comes, is the end of all that its tests have started.

SIGTERM and Ctrl-C stop it in order: the fixtures end their servers. While a test has a run in this process, the
product takes the signal, so those that come from outside are noticed here too, and no further test begins. What is left
when pytest is gone is found by a mark in its environment, and ended by a process of its own.
"""

import _thread
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

MARK = "TRAINER_TESTS_STARTED_BY"
STOPPING = (signal.SIGTERM, signal.SIGINT)
PATIENCE_SECONDS = 30.0  # for the test in progress and the fixtures
GRACE_SECONDS = 3.0  # for a process that is told to end


def mark() -> dict[str, str]:
    """For programs that get an environment of their own: what makes them known as started by the tests."""
    return {MARK: os.environ[MARK]} if MARK in os.environ else {}


def pytest_sessionstart(session: Any) -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # a shell's background job, whose children would ignore it too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    own_signals: list[int] = []
    sys.addaudithook(lambda event, values: _note_own(event, values, own_signals))
    threading.Thread(target=_watch, args=(session, ours, theirs, own_signals), daemon=True).start()
    if hasattr(os, "pidfd_open"):
        os.environ[MARK] = f"{os.getpid()}-{time.time_ns()}"
        command = [sys.executable, "-S", __file__, str(os.getpid()), os.environ[MARK]]
        subprocess.Popen(command, env={}, stdin=subprocess.DEVNULL, start_new_session=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _note_own(event: str, values: tuple[Any, ...], own_signals: list[int]) -> None:
    """Tests stop a run in this process by a signal of their own."""
    if event == "os.kill" and values[0] == os.getpid():
        own_signals.append(values[1])


def _watch(session: Any, arrived: socket.socket, kept_open: socket.socket, own_signals: list[int]) -> None:
    while True:
        for number in arrived.recv(64):
            if number in own_signals:
                own_signals.remove(number)
            elif number in STOPPING:
                session.shouldstop = session.shouldstop or f"stopped by {signal.Signals(number).name}"
                threading.Thread(target=_insist, args=(128 + number,), daemon=True).start()


def _insist(code: int) -> None:
    time.sleep(PATIENCE_SECONDS)
    _thread.interrupt_main()
    time.sleep(PATIENCE_SECONDS)
    os._exit(code)


def _started(value: str) -> Iterator[int]:
    """The processes that have the mark."""
    sought = f"{MARK}={value}".encode()
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and sought in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
        except OSError:  # it has ended, or is another user's
            continue


def _end_what_is_left(parent: int, value: str) -> None:
    select.select([os.pidfd_open(parent)], [], [])
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + GRACE_SECONDS
        for process in _started(value):
            _send(process, number)
        while time.monotonic() < until and any(_started(value)):
            time.sleep(0.1)


def _send(process: int, number: int) -> None:
    try:
        os.kill(process, number)
        os.kill(process, signal.SIGCONT)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    _end_what_is_left(int(sys.argv[1]), sys.argv[2])
