"""Processes of a server: one that takes too long, or outlives its server, is ended with what it has started."""

import sys
import threading
from pathlib import Path

import pytest

from tests.waiting import until
from trainer.dashboard.datasets.processes import OwnProcesses, ProcessEnd
from trainer.errors import TrainerError


def waits(tmp_path: Path) -> tuple[str, ...]:
    """Words of a command that starts a process, names it in a file and waits for it."""
    start = f"import subprocess; child = subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(60)'])"
    return "timeit", "-n1", "-r1", f"{start}; open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); child.wait()"


def is_gone(tmp_path: Path) -> bool:
    state = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_what_it_is_given_and_says_comes_back_with_its_exit_code() -> None:
    outcome = OwnProcesses().run("json.tool", "--compact", given=b'{"a": 1}', most_seconds=60)
    assert outcome == ProcessEnd(0, b'{"a":1}\n', "")
    refused = OwnProcesses().run("json.tool", given=b"{", most_seconds=60)
    assert refused is not None
    assert (refused.code, "Expecting property name" in refused.said) == (1, True)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_one_that_takes_too_long_is_stopped_with_what_it_has_started(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="it took more than 0 minutes and was stopped"):
        OwnProcesses().run(*waits(tmp_path), most_seconds=2)
    until(lambda: is_gone(tmp_path), "the end of the child", 10)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_a_server_that_ends_takes_its_processes_with_it_and_begins_no_more(tmp_path: Path) -> None:
    own, outcomes = OwnProcesses(), list[ProcessEnd | None]()
    thread = threading.Thread(target=lambda: outcomes.append(own.run(*waits(tmp_path), most_seconds=60)))
    thread.start()
    until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text() != "", "the child", 20)
    own.end()
    thread.join(20)
    assert outcomes == [None]
    until(lambda: is_gone(tmp_path), "the end of the child", 10)
    assert own.run("json.tool", most_seconds=60) is None
