"""Signals: a hang-up and SIGTERM mean that the run can resume, Ctrl-C that a person ended it."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from trainer.errors import ExitCode
from trainer.training.interrupt import Interruption

pytestmark = pytest.mark.apart

CODES = [
    (signal.SIGTERM, ExitCode.RESUMABLE),
    (signal.SIGHUP, ExitCode.RESUMABLE),
    (signal.SIGINT, ExitCode.INTERRUPTED),
]


@pytest.mark.parametrize(("number", "code"), CODES)
def test_the_first_signal_asks_and_the_second_interrupts(number: signal.Signals, code: ExitCode) -> None:
    asked: list[int] = []
    with Interruption() as interruption, interruption.calls(lambda: asked.append(1)):
        os.kill(os.getpid(), number)
        assert asked == [1]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert interruption.exit_code is code


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Interruption():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


LEFT_ALONE = """
import sys, time
from trainer.training.interrupt import Interruption
stopped = []
with Interruption() as interruption, interruption.calls(lambda: stopped.append(1)):
    print("begun", flush=True)
    while not stopped:
        time.sleep(0.01)
    for _ in range(100):
        print("still going", flush=True)
        print("still going", file=sys.stderr, flush=True)
sys.exit(interruption.exit_code)
"""


def test_a_terminal_that_is_closed_does_not_fail_what_still_prints() -> None:
    parent, child = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", LEFT_ALONE], stdin=child, stdout=child, stderr=child)
    os.close(child)
    assert os.read(parent, 100).startswith(b"begun")
    os.close(parent)
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == ExitCode.RESUMABLE
