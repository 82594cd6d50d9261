"""Work of a server in a thread: its record, the end of its thread or server, and another server's."""

import threading
from pathlib import Path
from typing import Any

import pytest

from trainer.dashboard.work import RecordedWork
from trainer.runs import files
from trainer.runs.process import this_process


def test_it_is_under_way_while_its_thread_lives_and_a_reload_finds_the_end(tmp_path: Path) -> None:
    work, may_end = RecordedWork(tmp_path / "a" / "work.json", "working"), threading.Event()

    def do() -> dict[str, Any]:
        work.note(said="half")
        may_end.wait(20)
        return {"state": "ready"}

    assert work.state() is None
    work.begin(do, name="one")
    assert work.is_under_way
    for found in (work.state(), RecordedWork(work.path, "working").state()):
        assert found is not None
        assert (found["state"], found["name"]) == ("working", "one")
    may_end.set()
    work.wait()
    for found in (work.state(), RecordedWork(work.path, "working").state()):
        assert found is not None
        assert (found["state"], found["said"]) == ("ready", "half")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_without_an_ending_is_interrupted_though_the_server_lives(tmp_path: Path) -> None:
    def do() -> dict[str, Any]:
        raise KeyboardInterrupt

    work = RecordedWork(tmp_path / "work.json", "working")
    work.begin(do)
    work.wait()
    assert (work.state() or {})["state"] == "interrupted"


@pytest.mark.parametrize(("pid", "state"), [(None, "working"), (2**22 + 1, "interrupted")])
def test_another_server_s_newer_work_is_shown_by_its_process(pid: int | None, state: str, tmp_path: Path) -> None:
    work = RecordedWork(tmp_path / "work.json", "working")
    work.begin(lambda: {"state": "ready"})
    work.wait()
    process = this_process() | ({} if pid is None else {"pid": pid})
    files.write_json(work.path, {"state": "working", "started_at": "2999-01-01", "process": process})
    assert (work.state() or {})["state"] == state
