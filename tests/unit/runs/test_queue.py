"""The queue's file: its order, many writers at once, damage and a full disk; and what commands say of a run in it."""

import errno
import json
import multiprocessing
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.commands import Done, performed
from tests.documents import answered
from tests.queues import fill, make_run
from trainer.errors import ConfigError, TrainingError
from trainer.runs import Run, files, flock, list_runs
from trainer.runs.lifecycle import cancel, enqueue, pause, pending_note, silence, withdraw
from trainer.runs.queue import CHANGE, FILE, FORMAT, Agreed, Queue, QueuedRun, QueueInUse, place_of

pytestmark = pytest.mark.apart
fork = multiprocessing.get_context("fork")
NAMES = "abcdefgh"
GONE = 2**22 + 1


def names(queue: Queue) -> list[str]:
    return [entry.run for entry in queue.entries()]


def command(*words: str) -> Done:
    return performed(words, lambda: 0.0)


moves = st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), st.just("out"), st.integers(0, 9)))


@settings(max_examples=60, deadline=None)
@given(st.lists(moves, max_size=25))
def test_the_order_is_that_of_a_list(steps: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        queue, expected = Queue(Path(folder)), list[str]()
        for name, what in steps:
            is_there = name in expected
            try:
                if what is None:
                    assert queue.add(name) == len(expected) + 1
                    assert not is_there
                    expected.append(name)
                elif what == "out":
                    queue.remove(name)
                    expected.remove(name)
                else:
                    queue.move(name, what)
                    assert 1 <= what <= len(expected)
                    expected.remove(name)
                    expected.insert(what - 1, name)
            except ConfigError:
                assert is_there == (what is None) or what not in range(1, len(expected) + 1)
            assert names(queue) == expected


entries = st.builds(
    QueuedRun,
    run=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,9}", fullmatch=True),
    num_gpus=st.one_of(st.none(), st.integers(1, 99)),
    folder=st.text(max_size=9),
    added_at=st.text(max_size=9),
    quote=st.one_of(
        st.none(),
        st.builds(
            Agreed,
            total=st.one_of(st.none(), st.floats(0, 1e9)),
            ceiling=st.none(),
            currency=st.text(max_size=3),
            lines=st.lists(st.text(max_size=5), max_size=3).map(tuple),
        ),
    ),
    starts=st.integers(0, 2),
    gpus=st.one_of(st.none(), st.lists(st.text(max_size=3), max_size=3).map(tuple)),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(entries, max_size=5, unique_by=lambda entry: entry.run))
def test_whatever_is_written_is_read_again(written: list[QueuedRun]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        queue = Queue(Path(folder))
        with queue.changing() as there:
            there += written
        assert queue.entries() == written
        if written:
            assert json.loads(queue.file.read_text())["format"] == FORMAT


def test_eight_processes_that_add_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    def add(number: int) -> None:
        for count in range(6):
            Queue(tmp_path).add(f"run-{number}-{count}")

    processes = [fork.Process(target=add, args=(number,)) for number in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = names(Queue(tmp_path))
    assert sorted(found) == [f"run-{number}-{count}" for number in range(8) for count in range(6)]
    for number in range(8):
        assert [name for name in found if name.startswith(f"run-{number}-")] == [f"run-{number}-{c}" for c in range(6)]


def test_a_change_waits_for_another_and_goes_on_at_once_when_that_is_killed(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    queue.add("first")

    def hold() -> None:
        with queue.changing() as there:
            there.clear()
            (tmp_path / "held").touch()
            time.sleep(60)

    holder = fork.Process(target=hold)
    holder.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    adder = fork.Process(target=queue.add, args=("second",))
    adder.start()
    adder.join(0.3)
    assert adder.is_alive()
    assert names(queue) == ["first"]  # who only reads waits for nobody
    os.kill(holder.pid or 0, signal.SIGKILL)
    adder.join(5)
    assert names(queue) == ["first", "second"]
    holder.join()


def test_a_holder_that_never_lets_go_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(tmp_path)
    queue.add("a")
    monkeypatch.setattr(flock, "PATIENCE_SECONDS", 0.05)
    handle = flock.take(queue.folder / CHANGE)
    assert handle is not None
    with pytest.raises(ConfigError, match=r"change.lock: another process has held it for 0 s, expected milliseconds"):
        queue.add("b")
    os.close(handle)
    queue.add("b")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": 1}',
        '{"format": 1, "entries": 3}',
        '{"format": 1, "entries": [{"run": "a"}]}',
        *(
            json.dumps({"format": 1, "entries": [entry]})
            for good in [{"run": "a", "num_gpus": None, "folder": "/", "added_at": "", "quote": None, "starts": 0}]
            for entry in (
                good,
                good | {"gpus": None, "run": "../a"},
                good | {"gpus": None, "run": ".a"},
                good | {"gpus": [1]},
                good | {"gpus": None, "num_gpus": "2"},
                good | {"gpus": None, "starts": True},
                good | {"gpus": None, "quote": {"total": 1}},
                good | {"gpus": None, "more": 1},
            )
        ),
    ],
)
def test_a_damaged_file_is_named_and_stays_as_it_is(tmp_path: Path, text: str) -> None:
    queue = Queue(tmp_path)
    run = make_run(tmp_path, "one")
    enqueue(run)
    queue.file.write_text(text)
    for change in (queue.entries, lambda: queue.add("b"), lambda: queue.remove("one"), lambda: queue.move("one", 1)):
        with pytest.raises(ConfigError, match=r"queue.json: is damaged .*trainer resume RUN --queue"):
            change()
    assert queue.file.read_text() == text
    assert place_of(run.path) is None
    assert [found.name for found in list_runs(tmp_path)] == ["one"]
    done = command("queue", "--root", str(tmp_path))
    assert (done.code, done.has_traceback, len(done.errors)) == (2, False, 1)


def test_a_newer_file_is_refused_and_stays(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    queue.add("a")
    newer = queue.file.read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}')
    queue.file.write_text(newer)
    with pytest.raises(ConfigError, match="is of format 2, expected 1"):
        queue.add("b")
    assert queue.file.read_text() == newer


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(tmp_path)
    queue.add("a")

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "write_flushed", full)
    with pytest.raises(TrainingError, match=r"queue.json: No space left on device; free space"):
        queue.add("b")
    monkeypatch.undo()
    assert names(queue) == ["a"]


def test_more_gpus_than_there_are_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5,-1,7")
    queue.add("a", 2)
    with pytest.raises(ConfigError, match="--gpus: is 3, expected 1 to 2, the GPUs of this machine"):
        queue.add("b", 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="--gpus: is 1, expected none of a machine without GPUs"):
        queue.add("b", 1)
    assert names(queue) == ["a"]


def test_only_one_process_works_and_the_next_one_after_it_was_killed(tmp_path: Path) -> None:
    def office() -> None:
        with Queue(tmp_path).working():
            (tmp_path / "held").touch()
            time.sleep(60)

    worker = fork.Process(target=office)
    worker.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    queue = Queue(tmp_path)
    assert (queue.worker() or {})["pid"] == worker.pid
    assert not queue.start_worker()
    with pytest.raises(QueueInUse, match=f"process {worker.pid} starts its runs already"), queue.working():
        pass
    os.kill(worker.pid or 0, signal.SIGKILL)
    worker.join()
    assert queue.worker() is None
    (queue.folder / ".queue.json.abcd.tmp").touch()
    with queue.working():
        assert (queue.worker() or {})["pid"] == os.getpid()
        assert not list(queue.folder.glob(".*.tmp"))
    assert queue.worker() is None


def waiting(root: Path) -> list[Run]:
    """Three runs in the queue, whose command is over."""
    runs = fill(root, ["one", "two", "three"])
    for run in runs:
        run.set_status("queued", pid=GONE)
    return runs


def test_a_waiting_run_is_never_shown_as_dead(tmp_path: Path) -> None:
    _, two, _ = waiting(tmp_path)
    root = ("--root", str(tmp_path))
    assert two.state == "queued"
    assert str(place_of(two.path)) == "waits in the queue, place 2 of 3"
    note = f"waits in the queue, place 2 of 3; no worker starts it: trainer queue work --root {tmp_path}"
    assert pending_note(two) == note
    assert note in command("show", "two", *root).out
    assert note in command("logs", "two", *root).err
    assert "waits in the queue, place 2" in command("runs", *root).out
    assert answered("show", "two", *root)["note"] == note
    assert [run["queue_place"] for run in answered("runs", *root)["runs"]] == [1, 2, 3]
    with Queue(tmp_path).working():
        assert pending_note(two) == "waits in the queue, place 2 of 3"
    refused = command("delete", "two", "--yes", *root)
    assert (refused.code, two.path.exists()) == (2, True)
    assert "waits in the queue, place 2 of 3, expected a stopped run; take it out first: trainer queue" in refused.err


def test_a_run_that_waits_on_another_machine_is_neither_dead_nor_taken_out_here(tmp_path: Path) -> None:
    _, two, _ = waiting(tmp_path)
    queue = Queue(tmp_path)
    queue.folder.rename(queue.folder.with_name("elsewhere"))
    status = json.loads((two.path / "status.json").read_text()) | {"host": "elsewhere"}
    (two.path / "status.json").write_text(json.dumps(status))
    for file in two.path.iterdir():
        os.utime(file, (1, 1))
    assert (two.state, silence(two)) == ("queued", None)
    assert "waits in the queue of 'elsewhere', place 2 of 3; no worker starts it" in (pending_note(two) or "")
    for stop in (pause, cancel):
        with pytest.raises(ConfigError, match="expected one of this machine; do that on 'elsewhere'"):
            stop(two, 0)
    assert names(Queue(tmp_path)) == []


def test_cancel_pause_and_remove_take_a_waiting_run_out(tmp_path: Path) -> None:
    one, two, three = waiting(tmp_path)
    root = ("--root", str(tmp_path))
    assert command("cancel", "one", *root).code == 0
    assert "two is paused; resume it with" in command("pause", "two", *root).err
    assert "three is out of the queue and paused" in command("queue", "remove", "three", *root).err
    assert [run.state for run in (one, two, three)] == ["cancelled", "paused", "paused"]
    assert names(Queue(tmp_path)) == []
    missing = command("queue", "remove", "two", *root)
    assert (missing.code, "run 'two': is not in the queue of" in missing.err) == (2, True)
    enqueue(two)
    with pytest.raises(ConfigError, match="run 'two': is in the queue already"):
        enqueue(two)
    assert (two.state, names(Queue(tmp_path))) == ("queued", ["two"])


def test_a_started_run_is_neither_moved_nor_removed_nor_shown_as_dead(tmp_path: Path) -> None:
    one, _, _ = waiting(tmp_path)
    queue = Queue(tmp_path)
    handle = queue.begin("one", ("0",))
    assert handle is not None
    assert queue.begin("one", ("1",)) is None
    with queue.changing() as there:
        there[0] = QueuedRun("one", None, "/", "", starts=1, gpus=queue.gpus_of("one"))
    assert (one.state, withdraw(one, "paused")) == ("queued", False)
    for change in (lambda: queue.move("one", 2), lambda: queue.remove("one")):
        with pytest.raises(ConfigError, match="run 'one': has been started, expected one that waits; stop it with"):
            change()
    listed = answered("queue", "--root", str(tmp_path))
    assert [(entry["run"], entry["state"], entry["place"]) for entry in listed["entries"]] == [
        ("one", "started", None), ("two", "waiting", 1), ("three", "waiting", 2)
    ]  # fmt: skip
    os.close(handle)
    assert "was started by the queue, and its process is gone" in (pending_note(one) or "")
    assert withdraw(one, "paused")
    assert one.state == "paused"


def test_the_commands_move_list_and_print_a_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting(tmp_path)
    root = ("--root", str(tmp_path))
    assert command("queue", "move", "three", "1", *root).code == 0
    listed = command("queue", *root)
    assert [line.split()[:3] for line in listed.out.splitlines()[1:]] == [
        ["1", "three", "waiting"], ["2", "one", "waiting"], ["3", "two", "waiting"]
    ]  # fmt: skip
    assert f"no worker starts them; start one with: trainer queue work --root {tmp_path}" in listed.err
    far = command("queue", "move", "three", "4", *root)
    assert (far.code, "place: is 4, expected 1 to 3" in far.err) == (2, True)
    early = command("queue", *root, "move", "three", "1")
    assert (early.code, "an option stands before 'move'" in early.err) == (2, True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    spaced = tmp_path / "50% of $HOME"
    unit = command("queue", "unit", "--root", str(spaced))
    assert f"ExecStart={unit.out.split('ExecStart=')[1].split()[0]} -m trainer queue work --root" in unit.out
    assert f'--root "{tmp_path}/50%% of $$HOME"' in unit.out
    assert 'Environment="CUDA_VISIBLE_DEVICES=0,1"' in unit.out
    assert "secret" not in unit.out
    assert "systemctl --user enable --now azure-llm-trainer-queue.service" in unit.err


def test_a_worker_of_an_empty_queue_says_so_and_creates_nothing(tmp_path: Path) -> None:
    root = tmp_path / "mistyped"
    worked = command("queue", "work", "--root", str(root))
    assert (worked.code, f"no run waits in {root}; put one into the queue with" in worked.err) == (0, True)
    assert not root.exists()


def test_the_folder_of_the_queue_is_hidden_beside_the_runs(tmp_path: Path) -> None:
    fill(tmp_path, ["one"])
    (folder,) = (path for path in tmp_path.iterdir() if path.name.startswith("."))
    assert list(folder.glob(f"*/{FILE}")) == [Queue(tmp_path).file]
    assert [run.name for run in list_runs(tmp_path)] == ["one"]
