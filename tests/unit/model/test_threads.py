"""The number of threads, chosen by processes of their own on two cores that others keep busy."""

import os
import subprocess
import sys

import pytest
import torch

from trainer.model import threads
from trainer.model.threads import use_threads

pytestmark = pytest.mark.apart

CHOOSE = """
import os, subprocess, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * int(sys.argv[1]))]
import torch
from trainer.model.threads import choose_threads
choose_threads()
print(torch.get_num_threads())
for process in busy: process.kill()
"""


def chosen(is_busy: bool, **more: str) -> int:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | more
    command = [sys.executable, "-c", CHOOSE, str(int(is_busy))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_cores_that_are_busy_get_no_thread() -> None:
    assert chosen(is_busy=True) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_a_number_that_is_given_is_obeyed() -> None:
    assert chosen(is_busy=True, OMP_NUM_THREADS="2") == 2


@pytest.mark.parametrize(("given", "expected"), [(1, 1), (10_000, None)])
def test_a_run_goes_on_with_its_own_number_if_there_are_as_many_cores(
    monkeypatch: pytest.MonkeyPatch, given: int, expected: int | None
) -> None:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_chosen", [])
    try:
        use_threads(given)
        assert torch.get_num_threads() == (expected or threads.usable_cores())
    finally:
        torch.set_num_threads(before)
