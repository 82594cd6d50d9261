"""Resuming: bit-identical from any position, stopped and cancelled from outside, on disks and mounts that fail."""

import errno
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.conftest import make_settings
from tests.integration.test_fit import Settings, adapter_hash, measurements, quiet, resume, stop_at, train
from tests.manifests import rewrite
from trainer.backends.local import execute
from trainer.errors import ConfigError, ExitCode, TrainingError
from trainer.model import threads
from trainer.runs import Run, create_run, find_or_adopt, lifecycle, lock
from trainer.runs.checkpoint import Checkpoint, list_checkpoints, newest_complete, write
from trainer.runs.queue import Queue
from trainer.training import fit as fitting
from trainer.training import loop, saving
from trainer.training.prepare import prepare
from trainer.training.saving import Saver
from trainer.training.writer import Snapshot

EVERY = {"training__logging_steps": 1, "training__save_steps": 2}


def stopped_run(settings: Settings, monkeypatch: pytest.MonkeyPatch, step: int = 3, **changes: Any) -> Run:
    with monkeypatch.context() as patch:
        stop_at(patch, step, signal.SIGTERM)
        run, outcome = train(settings(run__name="stopped", **changes))
    assert outcome.exit_code is ExitCode.RESUMABLE
    return run


# Bit-identical


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Runs on the rows of `settings`, each trained once for all tests that hold a resumed one against it."""

    @cache
    def trained(**changes: Any) -> Run:
        folder = tmp_path_factory.mktemp("uninterrupted")
        return train(make_settings(folder)(run__name="whole", **changes))[0]

    return trained


POSITIONS = {"first step": 1, "inside an epoch": 2, "last of an epoch": 4, "first of the next": 5, "last but one": 7}


@pytest.mark.parametrize(
    ("dropout", "number"),
    [
        pytest.param(0.1, signal.SIGTERM, id="dropout"),
        pytest.param(0.1, signal.SIGINT, id="dropout, ctrl-c", marks=pytest.mark.long),
        pytest.param(0.0, signal.SIGTERM, id="plain", marks=pytest.mark.long),
        pytest.param(0.0, signal.SIGINT, id="plain, ctrl-c", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("position", POSITIONS)
def test_a_stopped_run_that_goes_on_is_the_run_that_never_stopped(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, position: str, dropout: float, number: signal.Signals,
    uninterrupted: Callable[..., Run],
) -> None:  # fmt: skip
    changes = {"lora__lora_dropout": dropout, "training__logging_steps": 3, "training__eval_steps": 2}
    whole = uninterrupted(**changes)
    with monkeypatch.context() as patch:
        stop_at(patch, POSITIONS[position], number)
        stopped, outcome = train(settings(run__name="stopped", **changes))
    assert outcome.exit_code == {signal.SIGTERM: 75, signal.SIGINT: 130}[number]
    assert stopped.state == "paused"
    assert resume(stopped).exit_code is ExitCode.DONE
    assert adapter_hash(stopped) == adapter_hash(whole)
    assert measurements(stopped) == measurements(whole)


@pytest.mark.slow
def test_a_run_stopped_again_and_again_is_still_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, uninterrupted: Callable[..., Run]
) -> None:
    whole = uninterrupted(**EVERY)
    run = stopped_run(settings, monkeypatch, 1, **EVERY)
    for step in (2, 3, 6):
        with monkeypatch.context() as patch:
            stop_at(patch, step, signal.SIGTERM)
            assert resume(run).exit_code is ExitCode.RESUMABLE
    resume(run)
    assert (adapter_hash(run), measurements(run)) == (adapter_hash(whole), measurements(whole))


@pytest.mark.slow
def test_a_run_goes_on_with_the_number_of_threads_that_it_began_with(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stopped_run(settings, monkeypatch)
    assert run.manifest().num_threads == torch.get_num_threads()
    rewrite(run, num_threads=1)
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads, "_chosen", [2])  # what this machine would take now
    torch.set_num_threads(2)
    try:
        resume(run)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_early_stopping_goes_on_counting(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {
        "training__n_epochs": 9,
        "training__early_stopping_patience": 3,
        "training__early_stopping_threshold": 9.0,
        "training__eval_steps": 2,
    }
    whole, _ = train(settings(run__name="whole", **changes))
    run = stopped_run(settings, monkeypatch, 5, **changes)
    resume(run)
    assert run.status()["step"] == whole.status()["step"] == 8
    assert (adapter_hash(run), measurements(run)) == (adapter_hash(whole), measurements(whole))


@pytest.mark.slow
def test_a_run_killed_between_its_last_step_and_its_result_stores_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"training__n_epochs": 9, "training__early_stopping_patience": 1, "training__early_stopping_threshold": 9}
    whole, _ = train(settings(run__name="whole", **changes))
    run, _ = train(settings(run__name="killed", **changes))
    shutil.rmtree(run.adapter)
    run.set_status("running", pid=2**22 + 1)
    assert run.state == "paused"
    assert resume(run).exit_code is ExitCode.DONE
    assert (adapter_hash(run), measurements(run)) == (adapter_hash(whole), measurements(whole))


@pytest.mark.slow
def test_breaking_the_random_state_of_a_resume_would_be_seen(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = train(settings(run__name="whole", lora__lora_dropout=0.1))
    run = stopped_run(settings, monkeypatch, 2, lora__lora_dropout=0.1)
    monkeypatch.setattr(saving, "restore_rng", lambda state: None)
    resume(run)
    assert adapter_hash(run) != adapter_hash(whole)


# From outside


def ask_at(monkeypatch: pytest.MonkeyPatch, step: int, ask: Callable[[Run], None]) -> None:
    original = loop.Trainer._step

    def asked(self: loop.Trainer, rows: Any) -> torch.Tensor:
        if self.state.global_step + 1 == step:
            self._looked_at = -10.0
            ask(self.run)
        return original(self, rows)

    monkeypatch.setattr(loop.Trainer, "_step", asked)


def test_a_paused_run_stops_at_the_step_and_goes_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, uninterrupted: Callable[..., Run]
) -> None:
    whole = uninterrupted(**EVERY)
    with monkeypatch.context() as patch:
        ask_at(patch, 3, lambda run: lifecycle.pause(run, wait_seconds=0) and None)
        run, outcome = train(settings(run__name="asked", **EVERY))
    assert (outcome.exit_code, run.state, run.asked()) == (ExitCode.RESUMABLE, "paused", None)
    assert [found.step for found in list_checkpoints(run.checkpoints)][-1] == 3
    resume(run)
    assert adapter_hash(run) == adapter_hash(whole)


def test_a_run_that_waits_to_begin_can_be_cancelled(settings: Settings) -> None:
    prepared = prepare(settings(**EVERY), print)
    run = create_run(prepared.config)
    run.set_status("queued")
    assert not lifecycle.cancel(run, wait_seconds=0)
    assert execute.resume(run, quiet(), print).exit_code is ExitCode.RUN_FAILED
    assert (run.state, run.status()["step"]) == ("cancelled", 1)


@pytest.mark.slow
def test_a_request_to_a_process_that_is_gone_does_not_stop_the_next_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stopped_run(settings, monkeypatch)
    run.ask("pause")
    assert execute.resume(run, quiet(), print).exit_code is ExitCode.DONE


def test_a_cancelled_run_keeps_its_checkpoint_and_cannot_go_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_at(monkeypatch, 2, lambda run: lifecycle.cancel(run, wait_seconds=0) and None)
    run, outcome = train(settings(**EVERY))
    assert (outcome.exit_code, run.state) == (ExitCode.RUN_FAILED, "cancelled")
    with pytest.raises(ConfigError, match="is cancelled, expected an unfinished run"):
        execute.resume(run, quiet(), print)
    with pytest.raises(ConfigError, match="is cancelled, expected one that has not ended"):
        lifecycle.cancel(run, wait_seconds=0)


def test_a_paused_run_is_cancelled_at_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stopped_run(settings, monkeypatch)
    assert lifecycle.cancel(run, wait_seconds=0)
    assert run.state == "cancelled"
    with pytest.raises(ConfigError, match="is cancelled, expected a running run"):
        lifecycle.pause(run, wait_seconds=0)


def test_a_second_process_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stopped_run(settings, monkeypatch)
    problem = f"is in use by process {os.getpid()} on {os.uname().nodename!r}"
    with lock.locked(run.path, print), pytest.raises(ConfigError, match=problem):
        execute.resume(run, quiet(), print)


def test_a_run_that_was_taken_over_ends(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loop.Trainer._step

    def losing(self: loop.Trainer, rows: Any) -> torch.Tensor:
        self.lock.lost = self.state.global_step == 2
        return original(self, rows)

    monkeypatch.setattr(loop.Trainer, "_step", losing)
    with pytest.raises(TrainingError, match="step 3: another process took over the run"):
        train(settings())


# A disk and a clock


@pytest.mark.parametrize(
    "room", [pytest.param(room, marks=[pytest.mark.long] * (room % 7000 != 0)) for room in range(0, 20_000, 1000)]
)
def test_a_disk_that_fills_up_anywhere_leaves_a_run_that_goes_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, room: int, uninterrupted: Callable[..., Run]
) -> None:
    """A writer that has `room` bytes left from the third step on; every file is written through it."""
    from trainer.runs import files

    write, step, left = files.write_flushed, loop.Trainer._step, float("inf")

    def limited(path: Path, data: bytes) -> None:
        nonlocal left
        left -= len(data)
        if left < 0:
            path.write_bytes(bytes(data)[: max(0, int(left + len(data)))])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, data)

    def step_of(self: loop.Trainer, rows: Any) -> torch.Tensor:
        nonlocal left
        if self.state.global_step == 2 and left == float("inf"):
            self.saver.writer.wait()
            left = room * 20
        return step(self, rows)

    config = settings(run__name="full", **EVERY)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_flushed", limited)
        patch.setattr(loop.Trainer, "_step", step_of)
        with pytest.raises(TrainingError, match="No space left on device"):
            train(config)
    run = Run(Path(config.run.root) / "full")
    newest, _ = newest_complete(run.checkpoints)
    assert newest is not None
    assert newest.step >= 2
    assert resume(run).exit_code is ExitCode.DONE
    whole = uninterrupted(**EVERY)
    assert (adapter_hash(run), measurements(run)) == (adapter_hash(whole), measurements(whole))


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_wrong_changes_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, hours: int, uninterrupted: Callable[..., Run]
) -> None:
    whole = uninterrupted(**EVERY)
    run = stopped_run(settings, monkeypatch, 5, **EVERY)
    moment = time.time() + hours * 3600
    for path in run.path.rglob("*"):
        os.utime(path, (moment, moment))
    resume(run)
    assert (adapter_hash(run), measurements(run)) == (adapter_hash(whole), measurements(whole))
    assert [found.step for found in list_checkpoints(run.checkpoints)][-3:] == [5, 6, 8]


# A mounted folder, after the machine is gone


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[pytest.mark.long] * (seed > 1)) for seed in range(12)])
def test_a_job_goes_on_from_nothing_but_what_a_mount_shows(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int, uninterrupted: Callable[..., Run]
) -> None:
    """A pre-empted node leaves a mounted folder in which the newest files are missing or cut short, in any order."""
    whole = uninterrupted(**EVERY)
    run = stopped_run(settings, monkeypatch, 6, **EVERY)
    source = random.Random(seed)
    files_by_age = sorted(
        (path for path in run.path.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime
    )
    shown = tmp_path / "mount" / "stopped"
    for number, path in enumerate(files_by_age):
        is_late = number > len(files_by_age) * 0.6
        target = shown / path.relative_to(run.path)
        if is_late and source.random() < 0.4:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes()
        is_cut = is_late and source.random() < 0.2
        target.write_bytes(data[: source.randrange(len(data) + 1)] if is_cut else data)
    (shown / lock.NAME).write_text(json.dumps({"host": "gone", "pid": 7, "pid_started": "1", "token": "x", "beat": 4}))
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.3)
    config = settings(run__name="stopped", run__root=str(tmp_path / "mount"), **EVERY)
    found = find_or_adopt(config)
    assert found is not None
    assert execute.train(prepare(config, print), found, quiet()).exit_code is ExitCode.DONE
    assert (adapter_hash(found), measurements(found)) == (adapter_hash(whole), measurements(whole))
    assert execute.train(prepare(config, print), found, quiet()).summary == "run 'stopped' has finished already"
    other = config.model_copy(update={"training": config.training.model_copy(update={"n_epochs": 3})})
    with pytest.raises(ConfigError, match=r"training\.n_epochs: was 2 when the run started, is 3"):
        execute.train(prepare(other, print), found, quiet())


@pytest.mark.parametrize("checkpointed", [True, False])
def test_a_manifest_that_a_mount_cuts_short_is_written_anew(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, checkpointed: bool, uninterrupted: Callable[..., Run]
) -> None:
    whole = uninterrupted(**EVERY)
    run = stopped_run(settings, monkeypatch, 3, **EVERY)
    written = run.manifest()
    (run.path / "manifest.json").write_bytes((run.path / "manifest.json").read_bytes()[:500])
    if not checkpointed:
        shutil.rmtree(run.checkpoints)
        run.checkpoints.mkdir()
    assert resume(run).exit_code is ExitCode.DONE
    assert (adapter_hash(run), measurements(run)) == (adapter_hash(whole), measurements(whole))
    assert run.manifest() == written


def test_a_job_that_starts_again_with_other_memory_left_keeps_its_plan(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.training import prepare as preparing

    run = stopped_run(settings, monkeypatch)
    budget = run.config().memory.token_budget
    monkeypatch.setattr(preparing, "free_memory_bytes", lambda device: 60 * 2**20)
    prepared = execute.check(settings(run__name="stopped"), print, may_exist=True).details
    assert prepared.plan.token_budget == budget
    assert prepare(settings(run__name="stopped"), print).plan.token_budget != budget
    assert execute.train(prepared, run, quiet()).exit_code is ExitCode.DONE


def test_a_run_that_waits_is_checked_with_all_memory_and_planned_when_it_starts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.backends.choose import choose
    from trainer.training import prepare as preparing

    config = settings(run__name="waits")
    monkeypatch.setattr(preparing, "free_memory_bytes", lambda device: 2**20)  # others run now
    with pytest.raises(ConfigError, match="need"):
        execute.check(config, print)
    backend = choose("local")
    plan = backend.check_waiting(config, print, None)
    assert plan.config.memory == config.memory
    run = backend.create(plan, may_exist=False)
    assert run.config().memory.token_budget == "auto"
    monkeypatch.undo()
    lifecycle.enqueue(run)
    backend.resume(run, print)  # by hand
    assert Queue(run.path.parent).entries() == []
    assert backend.follow(run, print).exit_code is ExitCode.DONE
    assert run.config().memory.token_budget != "auto"


def test_a_folder_that_holds_something_else_is_not_adopted(settings: Settings, tmp_path: Path) -> None:
    config = settings(run__name="thesis")
    folder = Path(config.run.root) / "thesis"
    folder.mkdir(parents=True)
    (folder / "chapter1.tex").write_text("")
    with pytest.raises(ConfigError, match="holds something else than a run; choose another name"):
        find_or_adopt(config)
    assert find_or_adopt(settings(run__name="new")) is None


def test_the_best_stays_until_a_better_one_is_on_disk(settings: Settings) -> None:
    """The writer may be behind training, which then knows a better step that is not written yet."""
    config = settings(training__save_total_limit=1)
    run = create_run(prepare(config, print).config)
    for step in (4, 5):
        write(run.checkpoints, step, {}, {})
    trainer = SimpleNamespace(config=config, run=run, curve=SimpleNamespace(best_step=6))
    Saver._written(trainer, Snapshot(5, {}, {}, {}, {"curve": {"best_step": 4}}))
    assert [found.step for found in list_checkpoints(run.checkpoints)] == [4, 5]


def test_a_checkpoint_that_another_run_starts_from_is_marked_as_read(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = train(settings(run__name="first"))
    marked: list[bool] = []
    original = fitting.load_adapter

    def load(model: Any, folder: Path, **options: Any) -> Any:
        marked.append(Checkpoint(folder).is_read)
        return original(model, folder, **options)

    monkeypatch.setattr(fitting, "load_adapter", load)
    train(settings(run__name="second", model__base=f"{first.path}@4", training__n_epochs=1))
    assert marked == [True]
    assert not Checkpoint(first.checkpoints / "step-00000004").is_read


def test_permanent_checkpoints_stay(settings: Settings) -> None:
    run, _ = train(settings(training__save_steps=1, training__save_total_limit=1, training__save_permanent_steps=3))
    assert [found.step for found in list_checkpoints(run.checkpoints)] == [3, 6, 8]


def test_a_questionable_start_is_not_hidden(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stopped_run(settings, monkeypatch)
    rewrite(run, packages={**run.manifest().packages, "torch": "1.0"})
    resume(run)
    messages = [event["message"] for event in run.events()]
    assert any(text.startswith("the last bits may differ from here on: torch 1.0 is now ") for text in messages)


def test_the_first_thing_a_detached_run_meets_is_in_its_status(settings: Settings) -> None:
    prepared = prepare(settings(), print)
    run = create_run(prepared.config)
    run.set_status("queued")
    Path(str(run.config().data.train)).unlink()
    with pytest.raises(Exception, match="does not exist"):
        execute.resume(run, quiet(), print)
    assert run.state == "failed"
    assert "does not exist" in run.status()["error"]
