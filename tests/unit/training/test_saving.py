"""Saved and restored: weights, optimizer, schedule, measurements, memory budget and random numbers are equal."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import TrainerState

from tests.conftest import make_settings
from tests.unit.training.test_engine import CPU, build
from tests.unit.training.test_executor import plan
from trainer.config import RunConfig
from trainer.errors import TrainingError
from trainer.model.adapter import adapter_tensors, trainable
from trainer.runs import Run
from trainer.runs.checkpoint import folder_of, list_checkpoints, newest_complete
from trainer.training.arguments import make_optimizer, make_schedule
from trainer.training.curve import Curve
from trainer.training.executor import MemoryBudget
from trainer.training.guard import FiniteGuard
from trainer.training.meter import Meter
from trainer.training.ranks import Ranks
from trainer.training.saving import Saver
from trainer.training.writer import optimizer_tensors

pytestmark = pytest.mark.apart

FINGERPRINT = {"memory.token_budget": 400, "memory.recompute_layers": 0}


@dataclass
class Training:
    """The parts of one training. A step has a random gradient, and a measured loss that rises after step 3."""

    config: RunConfig
    run: Run
    fingerprint: dict[str, Any] = field(default_factory=lambda: dict(FINGERPRINT))
    model: PeftModel = field(default_factory=lambda: build("Llama", torch.float32))

    def __post_init__(self) -> None:
        self.optimizer = make_optimizer(self.config, plan(400), self.model)
        self.schedule = make_schedule(self.optimizer, "linear", warmup_steps=2, total_steps=20)
        self.budget, self.curve = MemoryBudget(plan(400)), Curve(5, 0.0)
        self.meter, self.guard = Meter(CPU), FiniteGuard(CPU, "skip", loss_is_scaled=False)
        self.state = TrainerState()
        self.saver = Saver(
            self.run, self.config, plan(400), self.fingerprint, Ranks(), self.model, self.optimizer,
            self.budget, self.curve, self.meter, self.guard,
        )  # fmt: skip

    def step(self) -> None:
        self.state.global_step += 1
        for parameter in trainable(self.model).values():
            parameter.grad = torch.randn_like(parameter)
        self.optimizer.step()
        self.schedule.step()
        self.meter.add(torch.rand(()), torch.tensor(2), 3, 5)
        self.curve.add(self.state.global_step, 0.1, float(abs(self.state.global_step - 3)))

    def save(self) -> Path:
        self.saver.save(self.state, self.schedule, None, stopped_early=False)
        self.saver.writer.wait()
        return folder_of(self.run.checkpoints, self.state.global_step)

    def restore(self, folder: Path) -> None:
        self.saver.restore_adapter(folder)
        self.saver.restore_progress(folder, self.schedule, None)
        self.saver.restore_rng(folder)
        self.state.global_step = int(folder.name.removeprefix("step-"))

    def everything(self) -> dict[str, Any]:
        """All that the next step depends on or goes on counting."""
        names = {id(parameter): name for name, parameter in trainable(self.model).items()}
        tensors = adapter_tensors(self.model) | optimizer_tensors(self.optimizer, names)
        rest = {
            "rates": [group["lr"] for group in self.optimizer.param_groups],
            "schedule": (self.schedule.last_epoch, self.schedule.get_last_lr()),
            "budget": self.budget.state(),
            "curve": self.curve.state(),
            "meter": {name: value for name, value in self.meter.state().items() if name != "seconds"},
            "guard": self.guard.state(),
            "random": torch.get_rng_state().tolist(),
        }
        return {name: tensor.tolist() for name, tensor in tensors.items()} | rest


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Training]:
    run = Run(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)

    def make(changes: dict[str, Any] | None = None, **parts: Any) -> Training:
        return Training(make_settings(tmp_path)(**(changes or {})), run, **parts)

    return make


def test_a_restored_training_equals_the_saved_one_and_goes_on_as_it_does(make: Callable[..., Training]) -> None:
    saved = make()
    for _ in range(4):
        saved.step()
    saved.budget.token_budget, saved.budget.recompute_layers = 100, 2
    saved.guard.gate(torch.tensor(float("nan")), saved.optimizer)
    folder, expected = saved.save(), saved.everything()
    del saved.optimizer.found_inf  # type: ignore[attr-defined]  # it was of that step
    saved.step()
    restored = make()
    assert restored.everything() != expected
    restored.restore(folder)
    assert restored.everything() == expected
    assert restored.guard.state() == {"in_a_row": 1}
    restored.step()
    assert restored.everything() == saved.everything()


def test_a_parameter_without_a_gradient_so_far_has_no_state_to_restore(make: Callable[..., Training]) -> None:
    saved, restored = make(), make()
    restored.restore(saved.save())
    assert restored.everything() == saved.everything()
    assert restored.optimizer.state == {}


def test_the_rate_after_a_resume_is_that_of_the_config_of_now(make: Callable[..., Training]) -> None:
    saved = make()
    for _ in range(3):
        saved.step()
    folder = saved.save()
    restored, whole = make(), make()
    for training in (restored, whole):
        training.schedule.base_lrs = [0.5]
    restored.restore(folder)
    for _ in range(3):
        whole.step()
    rates = [training.optimizer.param_groups[0]["lr"] for training in (restored, whole)]
    assert rates[0] == rates[1] == restored.schedule.get_last_lr()[0]


@pytest.mark.parametrize(("setting", "is_kept"), [("memory.token_budget", False), ("training.n_epochs", True)])
def test_the_tighter_budget_is_kept_unless_the_config_sets_another(
    make: Callable[..., Training], setting: str, is_kept: bool
) -> None:
    saved = make()
    saved.budget.token_budget = 100
    restored = make(fingerprint=FINGERPRINT | {setting: 7})
    restored.restore(saved.save())
    assert restored.budget.token_budget == (100 if is_kept else 400)


@pytest.mark.parametrize("what", ["weight", "optimizer state"])
def test_what_is_not_finite_is_not_saved(make: Callable[..., Training], what: str) -> None:
    training = make()
    training.step()
    whole = training.save()
    training.step()
    parameter = next(iter(trainable(training.model).values()))
    spoiled = parameter if what == "weight" else training.optimizer.state[parameter]["exp_avg"]
    spoiled.data.view(-1)[0] = float("nan")
    with pytest.raises(TrainingError, match=f"^step 2: the {what} .* is not finite"):
        training.save()
    newest, passed_over = newest_complete(training.run.checkpoints)
    assert (newest is not None and newest.path, passed_over) == (whole, [])


@pytest.mark.parametrize(
    ("keep", "permanent", "kept"),
    [(1, None, [3, 9]), (3, None, [3, 7, 8, 9]), (1, 4, [3, 4, 8, 9]), (9, None, list(range(1, 10)))],
)
def test_the_newest_the_best_and_the_permanent_ones_are_kept(
    make: Callable[..., Training], keep: int, permanent: int | None, kept: list[int]
) -> None:
    training = make({"training__save_total_limit": keep, "training__save_permanent_steps": permanent})
    for _ in range(9):
        training.step()
        training.save()
    assert [checkpoint.step for checkpoint in list_checkpoints(training.run.checkpoints)] == kept
    told = [event["data"]["step"] for event in training.run.events() if event["type"] == "checkpoint"]
    assert told == list(range(1, 10))


def test_the_adapter_of_another_base_is_refused_and_nothing_changes(make: Callable[..., Training]) -> None:
    folder = make(model=build("Llama", torch.float32, hidden_size=16)).save()
    training = make()
    before = training.everything()
    with pytest.raises(TrainingError, match=r"has the shape .*; delete it to resume from an earlier one"):
        training.restore(folder)
    assert training.everything() == before
