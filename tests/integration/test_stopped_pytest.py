"""pytest itself, stopped from outside in the middle of a test that has started programs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.serving import wait_until

TESTS = """
import subprocess, sys, time
from pathlib import Path

from trainer.training.interrupt import Interruption

HERE = Path(__file__).parent


def test_that_starts_programs():
    sleeps = [sys.executable, "-c", "import time; time.sleep(600)"]
    plain = subprocess.Popen(sleeps)
    detached = subprocess.Popen(sleeps, start_new_session=True)
    (HERE / "started").write_text(f"{plain.pid} {detached.pid}")
    (HERE / "started").rename(HERE / "pids")
    if "WHILE_A_RUN_LISTENS":
        stops = []
        with Interruption() as interruption, interruption.calls(lambda: stops.append(True)):
            while not stops:
                time.sleep(0.05)
    else:
        time.sleep(600)


def test_that_must_not_begin():
    (HERE / "begun").touch()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what is left is found in /proc")
@pytest.mark.parametrize("listens", [False, True], ids=["alone", "while a run listens"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_all_that_was_started_ends_with_it(tmp_path: Path, number: signal.Signals, listens: bool) -> None:
    (tmp_path / "test_it.py").write_text(TESTS.replace("WHILE_A_RUN_LISTENS", "yes" if listens else ""))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.guard", "--rootdir", tmp_path, "-c", os.devnull]
    process = subprocess.Popen([*command, tmp_path], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    wait_until(lambda: (tmp_path / "pids").exists(), 60)
    started = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    time.sleep(0.2)
    process.send_signal(number)
    process.wait(timeout=100)  # a test that sleeps on would take ten minutes
    wait_until(lambda: not any(_lives(pid) for pid in started), 60)
    assert not (tmp_path / "begun").exists()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
