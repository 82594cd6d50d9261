"""Numbers that are not finite: training stops or skips the update, and never stores them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.test_fit import Settings, resume, train
from trainer.data.pack.packing import Pack
from trainer.errors import ExitCode, TrainingError
from trainer.runs import Run
from trainer.runs.checkpoint import list_checkpoints
from trainer.training import loop, saving
from trainer.training.engine import Engine

MIDDLE = (float("inf"), 4)
WHERE = ["batch", "loss", "gradient", "weight", "optimizer state"]


def poison(trainer: loop.Trainer, where: str, value: float, rows: Any) -> None:
    parameters = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    match where:
        case "gradient":
            parameters[0].grad.fill_(value)
        case "weight":
            parameters[-1].data[0, 0] = value
        case "optimizer state":
            for state in trainer._torch_optimizer.state.values():
                state["exp_avg"].fill_(value)


@pytest.mark.parametrize(
    ("value", "step"),
    [
        pytest.param(value, step, id=f"{value} in step {step}", marks=[pytest.mark.long] * ((value, step) != MIDDLE))
        for value in (float("nan"), float("inf"))
        for step in (1, 4, 8)  # first, middle, last
    ],
)
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.slow
def test_what_is_not_finite_stops_the_run_and_is_never_stored(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, where: str, step: int, value: float
) -> None:
    original, sums = loop.Trainer._step, Engine.sums
    bad = False

    def step_of(self: loop.Trainer, rows: Any) -> torch.Tensor:
        nonlocal bad
        bad = self.state.global_step + 1 == step
        loss = original(self, rows)
        if bad:
            poison(self, where, value, rows)
        return loss

    def sums_of(self: Engine, pack: Pack) -> Any:
        found = sums(self, pack)
        if bad and torch.is_grad_enabled() and where in ("batch", "loss"):
            return replace(found, nll=found.nll * value)
        return found

    monkeypatch.setattr(loop.Trainer, "_step", step_of)
    monkeypatch.setattr(Engine, "sums", sums_of)
    if where == "optimizer state" and step == 1:
        step = 2  # before the first update there is none
    config = settings(training__save_steps=2, training__logging_steps=3)
    with pytest.raises(TrainingError, match="not finite, expected finite numbers; "):
        train(config)
    (run,) = [Run(path) for path in Path(config.run.root).iterdir()]
    assert run.state == "failed"
    assert not run.adapter.exists()
    for found in list_checkpoints(run.checkpoints):
        for name in (saving.ADAPTER, saving.OPTIMIZER):
            assert all(tensor.isfinite().all() for tensor in load_file(found.path / name).values())
    assert all(row.get("train_loss") != 0.0 for row in run.results())
    monkeypatch.undo()
    assert resume(run).exit_code is ExitCode.DONE


def test_the_policy_skip_leaves_the_update_out_and_says_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loop.Trainer._step

    def step_of(self: loop.Trainer, rows: Any) -> torch.Tensor:
        loss = original(self, rows)
        if self.state.global_step + 1 in (2, 3):
            poison(self, "gradient", float("nan"), rows)
        return loss

    monkeypatch.setattr(loop.Trainer, "_step", step_of)
    run, outcome = train(settings(training__on_non_finite="skip", training__logging_steps=4, training__save_steps=1))
    assert outcome.exit_code is ExitCode.DONE
    messages = [event["message"] for event in run.events()]
    assert [text for text in messages if "left out" in text] == [
        f"step {step}: 1 updates left out, the loss or gradient was not finite" for step in (2, 3)
    ]
    assert all(t.isfinite().all() for t in load_file(run.adapter / saving.ADAPTER).values())


def test_the_policy_skip_gives_up_after_five_in_a_row(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loop.Trainer._step

    def step_of(self: loop.Trainer, rows: Any) -> torch.Tensor:
        loss = original(self, rows)
        poison(self, "gradient", float("nan"), rows)
        return loss

    monkeypatch.setattr(loop.Trainer, "_step", step_of)
    with pytest.raises(TrainingError, match="the gradient is not finite in 5 steps in a row"):
        train(settings(training__on_non_finite="skip", training__logging_steps=5, training__n_epochs=3))


def test_a_loss_spike_is_an_event(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = Engine.sums
    count = 0

    def sums_of(self: Engine, pack: Pack) -> Any:
        nonlocal count
        found = sums(self, pack)
        count += torch.is_grad_enabled()
        return replace(found, nll=found.nll * 10) if count == 13 and torch.is_grad_enabled() else found

    monkeypatch.setattr(Engine, "sums", sums_of)
    run, _ = train(settings(training__n_epochs=4, training__logging_steps=2))
    (spike,) = [event for event in run.events() if event["type"] == "loss_spike"]
    assert spike["data"] == {"step": 13}
    assert spike["message"].startswith("step 13: the loss is ")
