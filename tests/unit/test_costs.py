"""The summary of what tests cost and measure, by pytest itself: with and without processes beside it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.guard import mark

pytestmark = pytest.mark.apart

CASES = """
from tests.costs import *
"""
MEASURING = """
import subprocess, sys, time
SPEND = "import time\\nwhile time.process_time() < {}: pass"

def test_here(record_property):
    record_property("answers", "7 of 9")
    exec(SPEND.format(time.process_time() + 0.3))

def test_in_a_process():
    subprocess.run([sys.executable, "-c", SPEND.format(0.3)], check=True)
"""


@pytest.mark.parametrize("beside", [["-p", "no:xdist"], ["--numprocesses", "1"]], ids=["one process", "pytest-xdist"])
def test_cpu_time_and_recorded_figures_end_the_output(tmp_path: Path, beside: list[str]) -> None:
    (tmp_path / "conftest.py").write_text(CASES)
    (tmp_path / "test_it.py").write_text(MEASURING)
    words = [sys.executable, "-m", "pytest", "--rootdir", str(tmp_path), *beside, "--costs", "1", str(tmp_path)]
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "", **mark()}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert "test_it.py::test_here: answers: 7 of 9" in lines
    (file,) = [line.split() for line in lines if line.endswith("  test_it.py")]
    (total,) = [line.split() for line in lines if line.endswith("  all files")]
    assert file[0] == total[0]
    assert float(file[0]) >= 0.6
