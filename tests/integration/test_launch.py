"""`train` starts one process for each GPU, here two on a CPU: one result, one voice, and one end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import REPOSITORY
from tests.integration.test_fit import adapter_hash, measurements
from tests.integration.test_ranks import run_of, write_config
from trainer.runs import Run, lifecycle

pytestmark = pytest.mark.slow

MINUTE = 60


def start(*arguments: str | Path, size: int = 2) -> subprocess.Popen[str]:
    environment = os.environ | {"TRAINER_PROCESSES": str(size), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "trainer", "train", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def ended(process: subprocess.Popen[str], seconds: float = 5 * MINUTE) -> tuple[int, str]:
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


def until(condition: Callable[[], object], seconds: float = 4 * MINUTE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def until_saved(run: Run) -> None:
    until(lambda: any(run.checkpoints.glob("*/MANIFEST.json")))


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return sorted(psutil.Process(process.pid).children(), key=lambda child: child.environ()["RANK"])


def test_two_processes_stop_together_and_go_on_as_if_they_had_not(tmp_path: Path) -> None:
    config = write_config(tmp_path, dropout=0)
    code, output = ended(start("--config", config, "run.name=whole"))
    assert code == 0
    assert output.count("finished at step") == 1
    whole, stopped = run_of(tmp_path, "whole"), run_of(tmp_path, "stopped")
    assert whole.manifest().num_processes == 2
    process = start("--config", config, "run.name=stopped")
    until_saved(stopped)
    ranks = ranks_of(process)
    process.send_signal(signal.SIGTERM)
    code, output = ended(process)
    assert (code, stopped.state, output.count("stopping after this step")) == (75, "paused", 1)
    assert not any(rank.is_running() for rank in ranks)
    assert ended(start("--resume", stopped.path))[0] == 0
    assert (adapter_hash(stopped), measurements(stopped)) == (adapter_hash(whole), measurements(whole))


@pytest.mark.long
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    config = write_config(tmp_path, dropout=0)
    for size in (1, 2):
        assert ended(start("--config", config, f"run.name=of-{size}", size=size))[0] == 0
    one, two = run_of(tmp_path, "of-1"), run_of(tmp_path, "of-2")
    for row, expected in zip(two.results(), one.results(), strict=True):
        assert row == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_process_that_dies_ends_the_others_with_one_message_and_the_run_goes_on(tmp_path: Path, victim: int) -> None:
    config = write_config(tmp_path, dropout=0)
    run = run_of(tmp_path, "killed")
    process = start("--config", config, "run.name=killed", "training.n_epochs=20")
    until_saved(run)
    ranks = ranks_of(process)
    ranks[victim].kill()
    code, output = ended(process, seconds=2 * MINUTE)
    assert code == 1
    assert f"process {victim + 1} of 2 was killed by SIGKILL, and so the others ended too" in output
    assert output.count("killed by") == 1
    assert "Traceback" not in output
    assert not any(rank.is_running() for rank in ranks)
    assert run.state in ("failed", "paused")


@pytest.mark.long
@pytest.mark.parametrize(("request_", "code", "state"), [("pause", 75, "paused"), ("cancel", 1, "cancelled")])
def test_a_request_ends_all_of_them(tmp_path: Path, request_: str, code: int, state: str) -> None:
    config = write_config(tmp_path, dropout=0)
    run = run_of(tmp_path, "asked")
    process = start("--config", config, "run.name=asked", "training.n_epochs=20")
    until_saved(run)
    getattr(lifecycle, request_)(run, 0)
    assert (ended(process)[0], run.state) == (code, state)


@pytest.mark.long
def test_ctrl_c_reaches_each_process_once(tmp_path: Path) -> None:
    config = write_config(tmp_path, dropout=0)
    run = run_of(tmp_path, "stopped")
    process = start("--config", config, "run.name=stopped", "training.n_epochs=20")
    until_saved(run)
    process.send_signal(signal.SIGINT)
    assert (ended(process)[0], run.state) == (130, "paused")


@pytest.mark.long
def test_processes_whose_parent_is_gone_end_at_a_checkpoint(tmp_path: Path) -> None:
    config = write_config(tmp_path, dropout=0)
    run = run_of(tmp_path, "orphaned")
    process = start("--config", config, "run.name=orphaned", "training.n_epochs=20")
    until_saved(run)
    ranks = ranks_of(process)
    process.kill()
    until(lambda: not any(rank.is_running() for rank in ranks), MINUTE)
    assert run.state == "paused"


@pytest.mark.long
def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    config = write_config(tmp_path, dropout=0)
    code, output = ended(start("--config", config, "lora.r=0"))
    assert (code, output.count("error:")) == (2, 1)
