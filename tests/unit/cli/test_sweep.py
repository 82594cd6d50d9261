"""`trainer sweep` on this machine: nothing without a whole grid, only what is missing, and the best at the end."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Done, performed
from tests.conftest import REPOSITORY
from tests.documents import answered
from tests.queues import program, starts
from trainer.backends import worker
from trainer.backends.contract import Backend
from trainer.cli import sweep as cli
from trainer.runs import Run
from trainer.runs.queue import Queue

pytestmark = pytest.mark.apart
GRID = ("training.learning_rate=1e-3,2e-3", "lora.r=4,8")
NAMES = [f"own-learning_rate-{rate}-r-{rank}" for rate in ("1e-3", "2e-3") for rank in (4, 8)]


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path, seconds=0.05))
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(cli, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker starts what is in the queue."""
    monkeypatch.setattr(Queue, "start_worker", lambda queue: False)


def config_of(root: Path, **changes: Any) -> str:
    starter = str(REPOSITORY / "data" / "starter.jsonl")
    values = {
        "model": {"base": "builtin:tiny"},
        "data": {"train": starter},
        "training": {"n_epochs": 1, "batch_size": 5},
        "evaluation": {"enabled": False},
        "run": {"root": str(root)},
    }
    for section, inner in changes.items():
        values[section] = values.get(section, {}) | inner
    path = root.parent / "own.yaml"
    path.write_text(json.dumps(values))
    return str(path)


def swept(*words: str) -> Done:
    done = performed(("sweep", *words), lambda: 0.0)
    assert not done.has_traceback, done.err
    return done


def queued(root: Path) -> list[str]:
    return [entry.run for entry in Queue(root).entries()]


@pytest.mark.usefixtures("waiting")
def test_the_grid_is_shown_and_then_waits_in_the_queue(root: Path) -> None:
    config = config_of(root)
    checked = answered("sweep", config, *GRID, "--check")
    assert not root.exists()
    assert [(run["run"], run["is_new"], run["state"], run["total_steps"]) for run in checked["runs"]] == [
        (name, True, None, 2) for name in NAMES
    ]
    assert (checked["quote"], checked["num_enqueued"], checked["backend"]) == (None, 0, "local")
    done = swept(config, *GRID)
    assert (done.code, done.errors, queued(root)) == (0, [], NAMES)
    assert "4 of 4 runs put into the queue" in done.err
    assert f"trainer compare {' '.join(NAMES)} --root {root}" in done.err
    settings = Run(root / NAMES[1]).config()
    assert (settings.training.learning_rate, settings.lora.r) == (1e-3, 8)


@pytest.mark.usefixtures("waiting")
def test_one_wrong_combination_enqueues_nothing_and_all_problems_are_said_once(root: Path) -> None:
    done = swept(config_of(root, data={"train": "nothing.jsonl"}), "training.learning_rate=1e-3,-1", "lora.r=4,0,8")
    assert (done.code, done.out, root.exists()) == (2, "", False)
    said = sorted(line.removeprefix("error: ") for line in done.errors)
    assert [line[:42] for line in said[1:]] == [
        "override 'training.learning_rate=-1': trai"[:42],
        "training.learning_rate=1e-3 lora.r=4 and 1"[:42],
    ]
    assert said[0].startswith("override 'lora.r=0': lora.r: is 0, expected")
    assert "nothing.jsonl" in said[2]


@pytest.mark.usefixtures("waiting")
def test_the_same_command_again_adds_only_what_is_missing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, add, put = config_of(root), Backend.enqueue, list[str]()

    def stops(self: Any, run: Run, *arguments: Any) -> None:
        if len(put) == 1:
            raise KeyboardInterrupt
        put.append(run.name)
        add(self, run, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Backend, "enqueue", stops)
        stopped = swept(config, *GRID)
    assert (stopped.code, queued(root)) == (75, NAMES[:1])
    assert sorted(path.name for path in root.glob("own*")) == NAMES[:2], "the second one was made and not put there"
    assert performed(("queue", "remove", NAMES[0], "--root", str(root)), lambda: 0.0).code == 0
    assert Run(root / NAMES[0]).state == "paused"
    again = answered("sweep", config, *GRID)
    assert (again["num_enqueued"], queued(root)) == (3, NAMES[1:]), "what was taken out by hand stays out"
    more = answered("sweep", config, GRID[0], "lora.r=4,8,16")
    assert (more["num_enqueued"], queued(root)[3:]) == (
        2, [f"own-learning_rate-{rate}-r-16" for rate in ("1e-3", "2e-3")],
    )  # fmt: skip
    elsewhere = config_of(root, run={"root": f"{root.parent}/./{root.name}"})  # the same place in other words
    assert [answered("sweep", each, *GRID)["num_enqueued"] for each in (config, elsewhere)] == [0, 0]


@pytest.mark.usefixtures("waiting")
def test_a_run_of_other_settings_is_no_run_of_the_sweep(root: Path) -> None:
    assert swept(config_of(root), *GRID).code == 0
    before = queued(root)
    done = swept(config_of(root, training={"n_epochs": 2, "batch_size": 5}), GRID[0], "lora.r=4,8,16")
    assert (done.code, len(done.errors), queued(root)) == (2, 4, before)
    assert f"run.name: {NAMES[0]!r} exists in {str(root)!r} with other settings" in done.errors[0]
    assert swept(config_of(root, run={"root": str(root), "name": "else"}), *GRID).code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cap", "5"), "--cap: is given and nothing of this grid bills"),
        (("--check", "--follow"), "--follow: is given with --check"),
        (("--max-runs", "3"), "the grid has 4 runs, expected 3 at most"),
        (("--gpus", "1"), "--gpus: is 1, expected none of a machine without GPUs"),
    ],
    ids=" ".join,
)
def test_options_that_contradict_are_refused(words: tuple[str, ...], said: str, root: Path) -> None:
    done = swept(config_of(root), *GRID, *words)
    assert (done.code, len(done.errors), root.exists()) == (2, 1, False)
    assert said in done.errors[0]


def test_follow_waits_for_all_and_ends_as_the_worst_of_them(root: Path) -> None:
    config = config_of(root, run={"root": str(root), "name": "fails"})
    done = swept(config, "lora.r=4,8", "--follow")
    assert (done.code, [start.run for start in starts(root)]) == (1, ["fails-r-4", "fails-r-8"])
    assert "fails-r-8: failed; see: trainer show" in done.err
    assert "0 of 2 runs succeeded, too few to compare" in done.err
    well = swept(config_of(root), "lora.r=4,8", "--follow")
    assert (well.code, well.out) == (0, ""), "the program in place of training compares nothing"
    assert "has no comparison with its base" in well.err
    assert "no worker" not in done.err + well.err
    stopped = swept(config_of(root, run={"root": str(root), "name": "stopped"}), "lora.r=4,8", "--follow")
    assert stopped.code == 75
    gated = swept(config_of(root, run={"root": str(root), "name": "gated"}), "lora.r=4,8", "--follow")
    assert gated.code == 3


@pytest.mark.usefixtures("waiting")
def test_who_waits_in_vain_is_told_once_and_may_leave(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "GRACE_SECONDS", 0.0)
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cli.time, "sleep", sleep)
        done = swept(config_of(root), "lora.r=4,8", "--follow")
    assert (done.code, done.out, queued(root)) == (75, "", ["own-r-4", "own-r-8"])
    assert done.err.count("no worker starts it: trainer queue work") == 2
    assert "the runs continue; wait for them again with the same command" in done.err
