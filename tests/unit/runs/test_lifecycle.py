"""Stopping a run from outside tells the truth, also where nobody is there to answer."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.commands import performed
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError, ExitCode
from trainer.runs import Run, create_run, lock
from trainer.runs.lifecycle import cancel, last_output, refuse_failed_gate, silence

pytestmark = pytest.mark.apart

GONE = 2**22 + 1


@pytest.fixture
def run(tmp_path: Path) -> Run:
    values = {
        "model": {"base": "builtin:tiny"},
        "data": {"train": "a.jsonl"},
        "run": {"name": "one", "root": str(tmp_path)},
    }
    return create_run(RunConfig.model_validate(values))


def test_a_run_whose_process_died_before_it_began_is_cancelled_at_once(run: Run) -> None:
    run.set_status("queued", pid=GONE)
    run.ask("pause")
    assert cancel(run, 0)
    assert (run.state, run.asked()) == ("cancelled", None)


def test_a_gate_whose_comparison_was_interrupted_refuses_as_one_that_does_not_hold(tmp_path: Path) -> None:
    values = {
        "model": {"base": "builtin:tiny"},
        "data": {"train": "a.jsonl", "validation": "b.jsonl"},
        "evaluation": {"gate": "not-worse"},
        "run": {"name": "gated", "root": str(tmp_path)},
    }
    run = create_run(RunConfig.model_validate(values))
    run.set_status("succeeded")
    with pytest.raises(ConfigError, match="gate not-worse is not judged, as its comparison was not made"):
        refuse_failed_gate(run, is_ignored=False)
    refuse_failed_gate(run, is_ignored=True)
    run.report.mkdir(exist_ok=True)
    (run.report / "report.json").write_text('{"verdict": {"sentence": "better"}}')
    refuse_failed_gate(run, is_ignored=False)


def test_a_run_whose_process_dies_while_it_is_asked_is_cancelled(run: Run) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run.launched(child.pid)
    run.set_status("queued", pid=GONE)

    def die() -> None:
        while run.asked() != "cancel":
            time.sleep(0.01)
        child.communicate()

    killer = threading.Thread(target=die)
    killer.start()
    assert cancel(run, 60)
    killer.join()
    assert (run.state, run.asked()) == ("cancelled", None)


def test_following_a_run_whose_process_died_ends_and_says_where_to_look(run: Run) -> None:
    run.launched(GONE)
    run.set_status("queued", pid=GONE)
    done = performed(("logs", str(run.path), "--follow"), lambda: 0.0)
    assert done.code == 75
    assert "its process ended before training began; see " in done.err
    listed = performed(("runs", "--root", str(run.path.parent)), lambda: 0.0).out
    assert ("paused" in listed, "queued" in listed) == (True, False)


def test_a_run_that_is_about_to_begin_in_the_background_is_not_deleted(run: Run) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run.launched(child.pid)
    run.set_status("queued", pid=GONE)
    done = performed(("delete", str(run.path), "--yes"), lambda: 0.0)
    assert (done.code, run.path.exists()) == (2, True)
    child.communicate()
    assert performed(("delete", str(run.path), "--yes"), lambda: 0.0).code == 0


@pytest.mark.parametrize("words", [("cancel",), ("pause", "--wait", "0")])
def test_a_full_disk_is_told_in_a_sentence(run: Run, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    run.set_status("running" if words[0] == "pause" else "paused")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        done = performed((words[0], str(run.path), *words[1:]), lambda: 0.0)
    assert done.code != 0
    (error,) = done.errors
    assert "No space left on device" in error
    assert run.asked() is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("name", ["cancel", "delete"])
def test_a_read_only_run_is_told_in_a_sentence(run: Run, name: str) -> None:
    run.set_status("paused")
    run.path.chmod(0o500)
    done = performed((name, str(run.path), *(["--yes"] if name == "delete" else [])), lambda: 0.0)
    run.path.chmod(0o700)
    assert (done.code != 0, len(done.errors)) == (True, 1)


def elsewhere(run: Run, seconds: float) -> None:
    """The run as a container left it that was removed so long ago: nothing here can tell that its process is gone."""
    owner = {"host": "a-container", "pid": 1, "pid_started": "7", "boot_id": "another", "pid_namespace": "pid:[1]"}
    run.set_status("running", **owner)
    (run.path / "lock.json").write_text(json.dumps(owner | {"token": "t", "beat": 3}))
    for file in run.path.iterdir():
        os.utime(file, (time.time() - seconds,) * 2)


@pytest.mark.parametrize("command", [("show",), ("logs", "--follow"), ("runs",)])
def test_a_run_of_a_machine_that_is_gone_says_how_long_nothing_was_heard(run: Run, command: tuple[str, ...]) -> None:
    elsewhere(run, 14 * 60)
    where = ("--root", str(run.path.parent)) if command == ("runs",) else (str(run.path),)
    done = performed((*command, *where), lambda: 0.0)
    told = " ".join((done.out + done.err).split())
    assert "no sign of life for 14 min" in told
    assert done.code == (ExitCode.RESUMABLE if command[0] == "logs" else ExitCode.DONE)
    who = "from process 1 on 'a-container', which cannot be asked from here; if it is gone, resume with: trainer resume"
    assert command == ("runs",) or who in told


def test_the_list_tells_machines_of_silence_too(run: Run) -> None:
    elsewhere(run, 14 * 60)
    done = performed(("runs", "--root", str(run.path.parent), "--format", "json"), lambda: 0.0)
    assert [listed["silence"] for listed in json.loads(done.out)["runs"]] == ["no sign of life for 14 min"]


def test_resuming_prints_the_run_whatever_comes_of_it(run: Run) -> None:
    run.set_status("cancelled")
    done = performed(("resume", str(run.path), "--format", "json"), lambda: 0.0)
    assert (done.code, json.loads(done.out)["run"]["state"], len(done.errors)) == (2, "cancelled", 1)


def test_a_run_of_another_machine_that_beats_is_left_alone(run: Run) -> None:
    elsewhere(run, 2 * 60)
    assert silence(run) is None
    assert not cancel(run, 0)
    done = performed(("delete", str(run.path), "--yes"), lambda: 0.0)
    assert (done.code, run.state) == (2, "running")


def test_a_silent_run_can_be_cancelled_and_deleted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.5)
    elsewhere(run, 14 * 60)
    assert cancel(run, 0)
    assert (run.state, run.asked()) == ("cancelled", None)
    elsewhere(run, 14 * 60)
    assert performed(("delete", str(run.path), "--yes"), lambda: 0.0).code == 0
    assert not run.path.exists()


def test_a_run_of_which_nothing_was_heard_yet_is_not_silent_for_ages(run: Run) -> None:
    for name in ("status.json", "events.jsonl"):
        (run.path / name).unlink(missing_ok=True)
    assert run.state == "queued"
    assert silence(run) is None


def test_a_sign_of_life_that_cannot_be_looked_at_is_not_taken_for_none(run: Run) -> None:
    elsewhere(run, 14 * 60)
    (run.path / "events.jsonl").unlink(missing_ok=True)
    (run.path / "events.jsonl").symlink_to("events.jsonl")
    with pytest.raises(OSError, match="symbolic links"):
        silence(run)


def test_a_process_that_can_be_asked_for_is_not_silent(run: Run) -> None:
    run.set_status("running")
    for file in run.path.iterdir():
        os.utime(file, (1.0, 1.0))
    assert silence(run) is None


def test_a_background_run_that_died_shows_what_it_printed_until_another_process_takes_over(run: Run) -> None:
    run.launched(GONE)
    run.set_status("queued", pid=GONE)
    (run.path / "output.log").write_bytes(b"loading 1%\rloading 99%\n\nTraceback\nImportError: no torch")
    assert last_output(run) == ["loading 99%", "Traceback", "ImportError: no torch"]
    run.set_status("failed", pid=GONE, error="no torch")
    assert last_output(run) == ["loading 99%", "Traceback", "ImportError: no torch"]
    run.set_status("failed", pid=GONE + 1, error="of a later process, in a terminal")
    assert last_output(run) == []
