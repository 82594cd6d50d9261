"""The local backend, as far as nothing is trained."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.commands import performed
from trainer.backends.choose import choose
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError
from trainer.runs import Run, create_run
from trainer.runs.lifecycle import enqueue
from trainer.runs.lock import RunInUse
from trainer.runs.queue import STARTED_BY_QUEUE, Queue


@pytest.fixture
def run(tmp_path: Path) -> Run:
    values = {
        "model": {"base": "builtin:tiny"},
        "data": {"train": "a.jsonl", "validation": "b.jsonl"},
        "run": {"name": "one", "root": str(tmp_path)},
    }
    return create_run(RunConfig.model_validate(values))


def test_a_run_that_is_about_to_be_trained_in_the_background_is_not_launched_twice(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []

    def start(words: list[str], **more: object) -> SimpleNamespace:
        started.append(words)
        return SimpleNamespace(pid=1)

    fake = SimpleNamespace(Popen=start, DEVNULL=-3, STDOUT=-2)
    monkeypatch.setattr("trainer.backends.local.backend.subprocess", fake)
    run.launched(os.getppid())
    run.ask("pause")
    before = run.status()
    with pytest.raises(RunInUse, match="run 'one': is trained in the background, expected a stopped run"):
        choose("local").detach(run, print)
    assert (started, run.status(), run.asked()) == ([], before, "pause")


def test_a_waiting_run_that_is_resumed_by_hand_leaves_the_queue(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(run.path.parent)
    enqueue(run)
    monkeypatch.setenv(STARTED_BY_QUEUE, "1")
    choose("local").resume(run, print)
    assert [entry.run for entry in queue.entries()] == ["one"]
    monkeypatch.delenv(STARTED_BY_QUEUE)
    choose("local").resume(run, print)
    assert (queue.entries(), run.state) == ([], "paused")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--gpus", "1"), "--gpus: is given without --queue, expected both"),
        (("--queue", "--detach"), "--queue: is given with --detach, expected one of them"),
        (("--queue", "lora.r=4"), "--queue: is given with changed settings, expected none"),
    ],
)
def test_options_that_contradict_the_queue_are_refused(options: tuple[str, ...], found: str, run: Run) -> None:
    for command in (("train", "--resume", str(run.path)), ("resume", str(run.path))):
        done = performed((*command, *options), lambda: 0.0)
        assert (done.code, [found in line for line in done.errors]) == (2, [True])
    assert Queue(run.path.parent).entries() == []


def test_a_started_run_does_not_wait_again(run: Run) -> None:
    run.launched(os.getppid())
    with pytest.raises(RunInUse, match="run 'one': is worked on, expected a stopped run; follow it"):
        choose("local").enqueue(run, print)
    run.launched(2**22 + 1)
    run.set_status("cancelled")
    with pytest.raises(ConfigError, match="is cancelled, expected an unfinished run"):
        choose("local").enqueue(run, print)
    assert Queue(run.path.parent).entries() == []


def test_ctrl_c_says_what_is_left_to_do(run: Run) -> None:
    local = choose("local")
    again = f"trainer resume {run.path}"
    assert local.after_interrupt(run) == f"stopped before training began; begin again: {again}"
    run.set_status("succeeded")
    assert local.after_interrupt(run) == f"trained; its comparison with the base is missing; make it with: {again}"
    run.report.mkdir()
    (run.report / "report.json").write_text('{"verdict": {"sentence": "better"}}')
    assert local.after_interrupt(run) == f"trained; look at it: trainer show {run.path}"
