"""`trainer data check` on a large file, as in a terminal and in a pipe."""

import json
import os
import subprocess
import sys

import pexpect
import pytest

COMMAND = [sys.executable, "-m", "trainer", "data", "check"]


@pytest.fixture
def large_file(tmp_path):
    path = tmp_path / "large.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(2300):
            messages = [
                {"role": "user", "content": f"{number}"},
                {"role": "assistant", "content": f"{number} " + "quiet words " * 750},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    assert path.stat().st_size > 20_000_000
    return path


def test_a_terminal_shows_a_bar_that_goes_away(large_file):
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    child = pexpect.spawn(COMMAND[0], [*COMMAND[1:], str(large_file)], env=environment, encoding="utf-8", timeout=60)
    child.expect("reading .*MB")
    child.expect("can be trained")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_a_pipe_shows_no_bar(large_file):
    done = subprocess.run([*COMMAND, large_file], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2,300 rows, 0 errors, 0 warnings: can be trained\n", "")
