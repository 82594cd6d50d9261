"""The worker of the queue: order, GPUs, what was started by hand, and kill -9 at any time."""

import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.commands import performed
from tests.queues import fill, make_run, program, starts, states, worker_in_a_fork
from tests.waiting import until
from trainer.backends import worker
from trainer.backends.choose import choose
from trainer.backends.quote import Item, NotAgreed, Quote, hold_agreed_price, note_agreed
from trainer.backends.worker import work
from trainer.dashboard import run_actions
from trainer.dashboard.playground import local_model
from trainer.dashboard.playground.page import playground_of
from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.lifecycle import enqueue
from trainer.runs.lock import RunInUse, locked
from trainer.runs.queue import STARTED_BY_QUEUE, Queue, QueuedRun

pytestmark = pytest.mark.apart
GONE = 2**22 + 1


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path, seconds=0.15))
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.02)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def worked(root: Path) -> list[str]:
    """All that the worker said, after the queue is empty."""
    said: list[str] = []
    work(root, said.append)
    assert Queue(root).entries() == []
    assert Queue(root).worker() is None
    return said


def started(root: Path) -> list[str]:
    return [start.run for start in starts(root)]


def test_runs_start_one_after_another_in_their_order_and_a_failed_one_stops_none(root: Path) -> None:
    runs = fill(root, ["a", "fails", "b"])
    Queue(root).move("b", 1)
    said = worked(root)
    assert started(root) == ["b", "a", "fails"]
    assert states(runs) == ["succeeded", "failed", "succeeded"]
    ends = {run.name: run.status()["ended"] for run in runs}
    assert all(ends[before.run] < after.at for before, after in zip(starts(root), starts(root)[1:], strict=False))
    assert said == [line for name, end in (("b", "succeeded"), ("a", "succeeded"), ("fails", "failed"))
                    for line in (f"{name}: started", f"{name}: {end}")]  # fmt: skip
    assert {start.folder for start in starts(root)} == {str(Path.cwd())}


def test_a_run_whose_gate_does_not_hold_is_done(root: Path) -> None:
    fill(root, ["gated", "next"])
    assert worked(root) == ["gated: started", "gated: succeeded", "next: started", "next: succeeded"]
    assert started(root) == ["gated", "next"]


def test_each_run_gets_gpus_of_its_own_and_none_overtakes_one_that_waits_for_more(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-6")
    monkeypatch.setenv("TRAINER_PROCESSES", "2")
    for name, num_gpus in (("a", 1), ("b", 1), ("all", None), ("c", 1), ("d", 1)):
        enqueue(make_run(root, name), num_gpus)
    worked(root)
    found = {start.run: start for start in starts(root)}
    assert [found[name].gpus for name in ("a", "b", "all")] == ["4", "GPU-6", "4,GPU-6"]
    assert {found["c"].gpus, found["d"].gpus} == {"4", "GPU-6"}
    ends = {name: Run(root / name).status()["ended"] for name in found}
    assert found["b"].at < ends["a"]  # side by side
    assert found["all"].at > max(ends["a"], ends["b"])
    assert min(found["c"].at, found["d"].at) > ends["all"]
    assert max(found["c"].at, found["d"].at) < min(ends["c"], ends["d"])


def test_an_entry_for_more_gpus_than_the_worker_sees_fails_and_the_next_one_starts(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    wide, narrow = make_run(root, "wide"), make_run(root, "narrow")
    enqueue(wide, 2)
    enqueue(narrow, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    worked(root)
    assert states([wide, narrow]) == ["failed", "succeeded"]
    assert "run 'wide': asks for 2 GPUs and the queue's worker sees 1" in wide.status()["error"]
    assert [(start.run, start.gpus) for start in starts(root)] == [("narrow", "1")]


@pytest.mark.parametrize("at", ["beginning", "launching"])
def test_a_full_disk_while_a_run_is_started_makes_the_queue_wait_and_fails_no_run(
    root: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    owner, name = {"beginning": (os, "pwrite"), "launching": (worker, "launch_detached")}[at]
    real, refusals = getattr(owner, name), iter(range(2))

    def full(*given: object, **environment: str) -> object:
        if next(refusals, None) is not None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*given, **environment)

    monkeypatch.setattr(owner, name, full)
    runs = fill(root, ["a", "b"])
    said = worked(root)
    assert (started(root), states(runs)) == (["a", "b"], ["succeeded", "succeeded"])
    assert [line for line in said if "No space left" in line and "the queue waits until" in line] == said[:1]


def test_a_run_that_somebody_starts_by_hand_at_that_moment_has_not_failed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, first = worker.launch_detached, iter(range(1))

    def taken(run: Run, *given: object, **environment: str) -> object:
        if next(first, None) is not None:
            assert run.state == "queued"
            raise RunInUse(run.name, "is trained in the background", "follow it")
        assert run.state == "queued", "not failed"
        return real(run, *given, **environment)  # type: ignore[arg-type]

    monkeypatch.setattr(worker, "launch_detached", taken)
    runs = fill(root, ["a"])
    worked(root)
    assert states(runs) == ["succeeded"]


def test_a_run_whose_process_dies_is_resumed_once_and_then_left(root: Path) -> None:
    dies, after = fill(root, ["dies", "after"])
    worked(root)
    assert started(root) == ["dies", "dies", "after"]
    assert states([dies, after]) == ["paused", "succeeded"]
    assert dies.status()["error"] == "its process has ended twice, and the queue went on without it"


def test_a_run_that_was_asked_to_stop_is_not_resumed(root: Path) -> None:
    stopped, dies, after = fill(root, ["stopped", "dies", "after"])
    process = multiprocessing.get_context("fork").Process(target=work, args=(root, lambda words: None))
    process.start()
    until(lambda: "dies" in started(root), "the second run", 20, 0.01)
    dies.ask("pause")  # and it is killed before it answers
    process.join()
    assert started(root) == ["stopped", "dies", "after"]
    assert states([stopped, dies, after]) == ["paused", "paused", "succeeded"]
    assert (dies.asked(), dies.status()["stopped_by"]) == (None, "pause")


def test_a_run_of_before_the_reboot_is_resumed_in_its_turn(root: Path) -> None:
    before, after = fill(root, ["before", "after"])
    with Queue(root).changing() as entries:
        entries[0] = QueuedRun("before", None, str(root), entries[0].added_at, starts=1, gpus=("0",))
    before.set_status("running", boot_id="another boot", pid=1)
    assert before.state == "paused"
    shown = performed(("show", "before", "--root", str(root)), lambda: 0.0).out
    assert "was started by the queue, and its process is gone; it is resumed when its turn comes; no worker" in shown
    assert worked(root)[0] == "before: its process is gone; it is resumed"
    assert started(root) == ["before", "after"]
    assert states([before, after]) == ["succeeded", "succeeded"]


def test_a_run_that_was_started_by_hand_has_the_machine_until_it_ends(root: Path) -> None:
    by_hand, waits = make_run(root, "by-hand"), fill(root, ["waits"])[0]
    with locked(by_hand.path, lambda message: None):
        pid = worker_in_a_fork(root)
        time.sleep(0.4)
        assert (started(root), waits.state) == ([], "queued")
    os.waitpid(pid, 0)
    assert started(root) == ["waits"]


def test_a_run_that_was_resumed_by_hand_meanwhile_is_not_started_again(root: Path) -> None:
    done, gone, _ = fill(root, ["done", "gone", "waits"])
    done.set_status("succeeded")
    gone.delete()
    assert worked(root)[:2] == ["done: succeeded", "gone: its folder is gone"]
    assert started(root) == ["waits"]


def test_an_entry_whose_process_cannot_start_fails_and_the_next_one_starts(root: Path, tmp_path: Path) -> None:
    lost, waits = make_run(root, "lost"), make_run(root, "waits")
    enqueue(lost)
    enqueue(waits)
    with Queue(root).changing() as entries:
        entries[0] = QueuedRun("lost", None, str(tmp_path / "no folder"), "")
    worked(root)
    assert states([lost, waits]) == ["failed", "succeeded"]
    assert "no folder: No such file or directory" in lost.status()["error"]


def test_what_bills_needs_no_gpu_but_waits_for_its_turn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    enqueue(make_run(root, "a"))
    enqueue(make_run(root, "b"))
    enqueue(make_run(root, "service", "openai"))
    enqueue(make_run(root, "c"))
    worked(root)
    found = {start.run: start for start in starts(root)}
    assert list(found) == ["a", "b", "service", "c"] or list(found) == ["a", "service", "b", "c"]
    assert found["service"].at < Run(root / "b").status()["ended"] < found["c"].at


@pytest.mark.parametrize(
    ("now", "is_refused"),
    [
        (Quote([Item("tokens", 10.0)], "list"), False),
        (Quote([Item("tokens", 9.0)], "list"), False),
        (Quote([Item("tokens", 10.01)], "list"), True),
        (Quote([Item("tokens", None)], "list"), True),
        (Quote([Item("tokens", 10.0)], "list", currency="EUR"), True),
        (Quote([Item("tokens", 10.0, dearest=12.0)], "list"), True),
    ],
)
def test_a_quote_above_the_one_that_was_agreed_to_ends_the_run(root: Path, now: Quote, is_refused: bool) -> None:
    run = make_run(root, "service", "openai")
    enqueue(run, quote=Quote([Item("tokens", 10.0)], "list").agreed())
    if not is_refused:
        hold_agreed_price(now, run)
        assert run.state == "queued"
        return
    with pytest.raises(ConfigError, match=r"its quote is now: tokens: .*agreed to: tokens: 10.00 USD; prices: list"):
        hold_agreed_price(now, run)
    assert (run.state, "10.00 USD" in run.status()["error"]) == ("failed", True)


def test_a_run_of_this_machine_waits_while_a_model_is_loaded_for_the_playground(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = fill(root, ["waits"])
    for handle in (first := Queue(root).hold_model(), second := Queue(root).hold_model()):
        assert handle is not None
    said: list[str] = []
    at_work = worker.Worker(Queue(root), said.append)
    for handle in (first, second):
        at_work.advance()
        at_work.advance()
        assert (run.state, starts(root)) == ("queued", [])
        os.close(handle)
    assert said == ["waits: waits until the playground's model is unloaded"]
    worked(root)
    assert (started(root), run.state) == (["waits"], "succeeded")


def test_the_process_of_a_loaded_model_is_known_to_the_queue_until_it_ends(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serves = tmp_path / "serves"
    serves.write_text("#!/bin/sh\nexec cat\n")
    serves.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(serves))
    monkeypatch.chdir(tmp_path)
    run, request = make_run(root, "trained"), SimpleNamespace()
    monkeypatch.setattr(run_actions, "studio_of", lambda _: SimpleNamespace(root=Path("runs")))
    playground = playground_of(root.resolve())
    for unload in (playground.models.unload, lambda: run_actions.free_device(request, "local")):
        playground.models.loaded = loaded = local_model._started(run)
        assert Queue(root).holds_model()
        run_actions.free_device(request, "openai")
        assert Queue(root).holds_model()
        unload()
        assert not Queue(root).holds_model()
        assert loaded.process.stdout is not None
        loaded.process.stdout.close()


TEN, ELEVEN = Quote([Item("tokens", 10.0)], "list"), Quote([Item("tokens", 11.0)], "list")


def test_a_run_starts_by_hand_at_the_price_that_was_agreed_to_and_at_a_higher_one_once_that_is(root: Path) -> None:
    run = make_run(root, "service", "openai")
    with pytest.raises(NotAgreed, match="expected one that was agreed to; see it and agree in a terminal: trainer res"):
        hold_agreed_price(TEN, run)
    note_agreed(run, TEN)
    hold_agreed_price(TEN, run)
    with pytest.raises(NotAgreed, match=r"expected no more than was agreed to: tokens: 10.00 USD"):
        hold_agreed_price(ELEVEN, run)
    note_agreed(run, ELEVEN)
    hold_agreed_price(ELEVEN, run)
    run.set_status("paused", agreed_quote="damaged")
    with pytest.raises(NotAgreed):
        hold_agreed_price(TEN, run)
    assert run.state == "paused"


@pytest.mark.parametrize("is_in_queue", [True, False])
def test_the_queue_starts_nothing_that_bills_at_no_agreed_price(
    root: Path, monkeypatch: pytest.MonkeyPatch, is_in_queue: bool
) -> None:
    run = make_run(root, "service", "openai")
    if is_in_queue:
        enqueue(run)
    monkeypatch.setenv(STARTED_BY_QUEUE, "1")
    hold_agreed_price(Quote([], "list"), run)
    with pytest.raises(ConfigError, match="expected one that was agreed to; start it at this price with"):
        hold_agreed_price(TEN, run)
    assert run.state == "failed"


def test_a_run_that_bills_waits_only_at_a_price_that_was_agreed_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue, "start_worker", lambda queue: False)
    run, queue = make_run(root, "service", "openai"), Queue(root)
    with pytest.raises(ConfigError, match="no price of it was agreed to, expected one; see it and start with: trainer"):
        choose("openai").enqueue(run, print)
    assert queue.entries() == []
    note_agreed(run, TEN)
    choose("openai").enqueue(run, print)
    assert [entry.quote for entry in queue.entries()] == [TEN.agreed()]


def test_the_run_goes_on_when_its_worker_is_killed_and_the_next_one_takes_it_over(root: Path) -> None:
    first, second = fill(root, ["first", "second"])
    pid = worker_in_a_fork(root)
    until(lambda: first.state == "running", "the first run", 20, 0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    said = worked(root)
    assert (started(root), "first: started" in said) == (["first", "second"], False)
    assert states([first, second]) == ["succeeded", "succeeded"]


def test_a_process_that_a_killed_worker_could_not_note_keeps_its_gpu(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for name in ("unnoted", "next"):
        enqueue(make_run(root, name), 1)
    handle = Queue(root).begin("unnoted", ("0",))
    assert handle is not None
    process = subprocess.Popen(["sleep", "60"], pass_fds=[handle])
    os.close(handle)
    pid = worker_in_a_fork(root)
    until(lambda: Run(root / "next").state == "succeeded", "the next run", 20, 0.01)
    assert [(entry.run, entry.gpus, entry.starts) for entry in Queue(root).entries()][:1] == [("unnoted", ("0",), 1)]
    Run(root / "unnoted").set_status("succeeded")
    process.kill()
    process.wait()
    os.waitpid(pid, 0)
    assert [(start.run, start.gpus) for start in starts(root)] == [("next", "1")]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_worker_that_is_killed_again_and_again_starts_each_run_once(root: Path, seed: int) -> None:
    runs = fill(root, [f"run-{number}" for number in range(5)])
    chance, kills = random.Random(seed), 0
    while Queue(root).entries():
        pid = worker_in_a_fork(root)
        until_killed = time.monotonic() + chance.uniform(0, 0.25)
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > until_killed:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                kills += 1
                break
            time.sleep(0.001)
    assert kills > 3
    assert (started(root), states(runs)) == ([run.name for run in runs], ["succeeded"] * 5)


def test_whoever_adds_a_run_to_an_idle_queue_finds_a_worker_or_starts_one(root: Path) -> None:
    """Workers end at any time between: no run is left waiting without one."""
    names = [f"run-{number}" for number in range(8)]

    def add(name: str, number: int) -> None:
        time.sleep(number * 0.15)
        enqueue(make_run(root, name))
        Queue(root).start_worker()

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add, args=(name, number // 2)) for number, name in enumerate(names)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    until(lambda: not Queue(root).entries() and Queue(root).worker() is None, "an empty queue", 60)
    assert Counter(started(root)) == Counter(names)


def test_ctrl_c_ends_the_worker_and_leaves_the_run(root: Path) -> None:
    first, second = fill(root, ["first", "second"])
    code = (
        f"import sys; sys.executable = {sys.executable!r}; from trainer.cli.main import trainer; "
        f"sys.argv = ['trainer', 'queue', 'work', '--root', {str(root)!r}]; trainer()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    interpreter = str(Path("/proc/self/exe").readlink())
    process = subprocess.Popen([interpreter, "-c", code], stderr=subprocess.PIPE, env=environment, text=True)
    until(lambda: first.state == "running", "the first run", 20, 0.01)
    again = performed(("queue", "work", "--root", str(root)), lambda: 0.0)
    assert (again.code, f"process {process.pid} starts its runs already" in again.err) == (0, True)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "the queue stops here; what was started runs on; continue with: trainer queue work --root" in said
    worked(root)
    assert (started(root), states([first, second])) == (["first", "second"], ["succeeded", "succeeded"])
