"""`make demo-openai` shows the whole journey, says what it is, and leaves nothing."""

import os
import subprocess
import sys

import pytest

from tests.openai_service.demo import ROOT


@pytest.mark.long
def test_the_demonstration_reaches_its_end_and_says_what_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.openai_service.demo"], cwd=ROOT, env={**os.environ, "PYTHONWARNINGS": "default"},
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "WITHOUT an Azure account" in done.stdout
    assert "left at the service: nothing" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "UserWarning" not in done.stdout
