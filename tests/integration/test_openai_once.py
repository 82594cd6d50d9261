"""Whatever happens to a call or to the process, each file and the job are made once."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loopback import FAULTS, Fault, Kill, Loopback, Request, status
from tests.openai_runs import Settings, environment, is_post, loopback, quiet, run_to_end, settings, tuning
from tests.tuning import Tuning
from trainer.backends.openai.backend import OpenAIService
from trainer.errors import BackendError
from trainer.runs import Run, create_run
from trainer.runs.ledger import Ledger

__all__ = ["environment", "loopback", "settings", "tuning"]


CREATING = ("/files", "/fine_tuning/jobs")
JOB = 4  # counted from 0: the job's creation comes after two files and a look at each
SHARP = ("timeout after", "reset after", "truncated body", "429 Retry-After 1e9", "500 after", "an HTML page with 200")


def test_a_401_is_asked_again_once(settings: Settings, tuning: Tuning, loopback: Loopback) -> None:
    loopback.faults = [Fault("401", match=is_post("/jobs"), answer=status(401))]
    assert run_to_end(settings()).state == "succeeded"
    assert len(tuning.jobs) == 1


@pytest.mark.parametrize("path", CREATING)
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.name in SHARP], ids=lambda fault: fault.name)
def test_a_fault_never_makes_two(
    fault: Fault, path: str, settings: Settings, tuning: Tuning, loopback: Loopback
) -> None:
    backend = OpenAIService()
    plan = backend.check(settings(), quiet)
    run = create_run(plan.config)
    loopback.faults = [fault.fresh(is_post(path))]
    try:
        backend.launch(plan, run, quiet)
    except BackendError:
        backend.resume(run, quiet)
    assert (len(tuning.files), len(tuning.jobs)) == (2, 1)
    made = {entry.facts["id"] for entry in Ledger(run.path).open()}
    assert made == {*tuning.files, *tuning.jobs}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", [pytest.param(n, marks=() if n == JOB else pytest.mark.long) for n in range(7)])
@pytest.mark.slow
def test_a_killed_launch_goes_on_to_one_job(
    number: int, after: bool, settings: Settings, tuning: Tuning, loopback: Loopback, tmp_path: Path
) -> None:
    settings()
    words = [sys.executable, "-m", "trainer", "train"]
    start = [*words, "--config", str(tmp_path / "config.yaml"), "--yes"]
    process: list[int] = []
    counted: list[Request] = []

    def nth(request: Request) -> bool:
        counted.append(request)
        return len(counted) == number + 3  # two lists come first, before there is a run

    loopback.kills = [Kill(nth, after, lambda: process[0])]
    started = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process.append(started.pid)
    assert started.wait(60) == -signal.SIGKILL
    again = subprocess.run([*words, "--resume", str(tmp_path / "runs" / "one")], capture_output=True, timeout=60)
    assert again.returncode == 0, again.stderr.decode()
    assert (len(tuning.files), len(tuning.jobs)) == (2, 1)
    assert Run(tmp_path / "runs" / "one").state == "succeeded"
