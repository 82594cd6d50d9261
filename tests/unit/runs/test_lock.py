"""The lock of a run: one process at a time, none after its death."""

import itertools
import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import ConfigError
from trainer.runs import files, lock
from trainer.runs.files import write_whole
from trainer.runs.lock import NAME, RunInUse, holder, locked
from trainer.runs.process import this_process

pytestmark = pytest.mark.apart

fork = multiprocessing.get_context("fork")


def silent(message: str) -> None:
    pass


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.6)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.1)


def hold(folder: Path, seconds: float) -> Any:
    """A process that holds the lock."""

    def run() -> None:
        with locked(folder, silent):
            time.sleep(seconds)

    process = fork.Process(target=run)
    process.start()
    while holder(folder) is None:
        time.sleep(0.01)
    return process


def test_the_lock_is_there_while_it_is_held_and_gone_after(tmp_path: Path) -> None:
    with locked(tmp_path, silent):
        owner = holder(tmp_path)
        assert owner is not None
        assert owner["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_is_refused_with_pid_and_host(tmp_path: Path) -> None:
    process = hold(tmp_path, 30)
    with pytest.raises(RunInUse) as caught, locked(tmp_path, silent):
        pass
    assert str(caught.value) == (
        f"run {tmp_path.name!r}: is in use by process {process.pid} on {os.uname().nodename!r}, expected a stopped "
        f"run; stop it with: trainer pause {tmp_path}"
    )
    process.kill()
    process.join()


def test_a_process_that_follows_a_job_is_not_to_be_paused(tmp_path: Path) -> None:
    process = hold(tmp_path, 30)
    files.write_json(tmp_path / "status.json", {"backend": "azureml"})
    with pytest.raises(RunInUse) as caught, locked(tmp_path, silent):
        pass
    assert str(caught.value).endswith(
        "expected a stopped run; that process follows its job: end it with Ctrl-C, which leaves the job alone"
    )
    process.kill()
    process.join()


def test_a_killed_process_does_not_lock_anyone_out(tmp_path: Path) -> None:
    process = hold(tmp_path, 30)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (tmp_path / NAME).exists()
    assert holder(tmp_path) is None
    with locked(tmp_path, silent):
        pass


def test_a_process_whose_pid_is_used_again_is_recognised_as_gone(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(json.dumps(this_process() | {"pid_started": "1", "token": "x", "beat": 3}))
    with locked(tmp_path, silent):
        pass


def test_a_living_owner_on_another_host_is_recognised_by_its_beat(tmp_path: Path) -> None:
    process = hold(tmp_path, 30)
    path = tmp_path / NAME
    before = lock.is_here
    try:
        lock.is_here = lambda owner: False  # as another host sees it
        with pytest.raises(ConfigError, match=f"in use by process {process.pid}"), locked(tmp_path, silent):
            pass
        os.kill(process.pid, signal.SIGSTOP)
        told: list[str] = []
        with locked(tmp_path, told.append):
            assert json.loads(path.read_text())["pid"] == os.getpid()
        assert told == [f"waiting 1 s for a sign of life of process {process.pid} on {os.uname().nodename!r}"]
    finally:
        lock.is_here = before
        process.kill()
        process.join()


@pytest.mark.parametrize("other", [{"pid_namespace": "pid:[1]"}, {"boot_id": "another"}])
def test_a_lock_of_another_container_is_not_stolen_while_it_beats(tmp_path: Path, other: dict[str, str]) -> None:
    """Same host name, and a pid that nobody has here."""
    path, beats = tmp_path / NAME, threading.Event()
    owner = this_process() | {"pid": 2**22 + 1, "token": "theirs"} | other

    def beat() -> None:
        for number in itertools.count():
            write_whole(path, json.dumps(owner | {"beat": number}))
            if beats.wait(0.1):
                return

    heart = threading.Thread(target=beat)
    heart.start()
    while not path.exists():
        time.sleep(0.01)
    try:
        with pytest.raises(ConfigError, match=f"in use by process {2**22 + 1}"), locked(tmp_path, silent):
            pass
        assert json.loads(path.read_text())["token"] == "theirs"
    finally:
        beats.set()
        heart.join()
    told: list[str] = []
    with locked(tmp_path, told.append):
        pass
    assert len(told) == 1


def test_an_owner_that_was_suspended_learns_that_it_lost_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path, silent) as mine:
        assert not mine.lost
        (tmp_path / NAME).write_text(json.dumps({"host": "another", "pid": 1, "token": "theirs", "beat": 0}))
        until = time.monotonic() + 10
        while not mine.lost and time.monotonic() < until:
            time.sleep(0.02)
        assert mine.lost
    assert json.loads((tmp_path / NAME).read_text())["token"] == "theirs"


@pytest.mark.parametrize("torn", [b"", b"{", b'{"host": "x", "pi'])
def test_a_lock_that_a_crash_cut_short_is_taken_over(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / NAME).write_bytes(torn)
    with locked(tmp_path, silent):
        pass


def test_of_many_processes_at_once_exactly_one_gets_a_stale_lock(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(json.dumps({"host": os.uname().nodename, "pid": 2**22 + 1, "token": "dead"}))
    results, gate = fork.Queue(), fork.Event()

    def run() -> None:
        gate.wait()
        try:
            with locked(tmp_path, silent):
                results.put("held")
                time.sleep(1.5)
        except ConfigError:
            results.put("refused")

    processes = [fork.Process(target=run) for _ in range(8)]
    for process in processes:
        process.start()
    gate.set()
    outcomes = sorted(results.get(timeout=30) for _ in processes)
    for process in processes:
        process.join()
    assert outcomes == ["held"] + ["refused"] * 7
