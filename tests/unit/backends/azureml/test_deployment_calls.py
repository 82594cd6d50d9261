"""What a person sees of a container's log, and how long an upload that fails is waited for."""

import sys

import pytest

from trainer.backends.azureml.deploy.deployment import SHOWN_LINES, last_lines
from trainer.backends.azureml.workspace import quietly


def test_a_log_is_shown_from_its_end_where_the_reason_stands() -> None:
    lines = [f"  {number}" for number in range(30)]
    logs = ["log of one:", *lines, "log of two: cannot be read", "log of three:", "  a"]
    assert last_lines(logs) == [
        "log of one:", *lines[-SHOWN_LINES:], "log of two: cannot be read", "log of three:", "  a"
    ]  # fmt: skip
    assert last_lines([]) == []


def test_what_the_sdk_prints_stays_off_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with quietly():
        sys.stdout.write("a dot")
        sys.stderr.write("\x1b[39m")
    sys.stdout.write("ours\n")
    assert capsys.readouterr() == ("ours\n", "")
