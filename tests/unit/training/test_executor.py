"""A step has the gradient of its conversations one at a time, however it is cut and whatever memory runs out."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from tests.conftest import make_settings
from tests.unit.training.test_engine import (
    CPU,
    DOUBLE,
    assert_same,
    build,
    gradients,
    masked,
    random_rows,
    reference,
)
from trainer.data.pack.packing import Pack
from trainer.data.render.rendering import IGNORE_INDEX, Example
from trainer.errors import TrainingError
from trainer.training.dataset import Rows
from trainer.training.engine import Engine
from trainer.training.executor import Executor
from trainer.training.loss import Sums
from trainer.training.plan import TrainingPlan
from trainer.training.ranks import Ranks
from trainer.training.tokens import Tokens
from trainer.training.validation import ValidationRows

pytestmark = pytest.mark.apart

ROWS = [masked(row.input_ids, lambda t, row=row: t > 0 and row.labels[t] != IGNORE_INDEX) for row in random_rows()]
LONGEST = max(len(row.input_ids) for row in ROWS)
NUM_SUPERVISED = sum(row.num_supervised for row in ROWS)
Packs = list[int]


class Small(Engine):
    """Has memory for so many tokens at a time, `recomputed` where it keeps no activations; notes what it computed."""

    room = recomputed = 10**6
    computed: Packs

    def recompute(self, num_layers: int) -> None:
        super().recompute(num_layers)
        self.room = self.recomputed if num_layers == self.num_recomputable else self.room

    def sums(self, pack: Pack) -> Sums:
        if len(pack.input_ids) > self.room:
            raise torch.OutOfMemoryError
        self.computed.append(len(pack.input_ids))
        return super().sums(pack)


class Forgetful(Engine):
    """Runs out of memory once, after a pack of the step has left its gradient and drawn its dropout."""

    calls = 0

    def sums(self, pack: Pack) -> Sums:
        self.calls += 1
        if self.calls == 2:
            raise torch.OutOfMemoryError
        return super().sums(pack)


def plan(token_budget: int) -> TrainingPlan:
    return TrainingPlan(1, 8, 1, 1, 0, 1e-3, 42, 512, token_budget, 0, 1, 1, 1)


def executor_of(model: PeftModel, token_budget: int, folder: Path, dropout: float = 0.0) -> tuple[Executor, list[str]]:
    """An executor of a model and a token budget, with the messages that it says."""
    said: list[str] = []
    config = make_settings(folder)(memory__shard_base=False, lora__lora_dropout=dropout)

    def say(message: str, level: Any = "info") -> None:
        said.append(f"{level}: {message}")

    return Executor(model, CPU, config, plan(token_budget), Ranks(), torch.Tensor.backward, say), said


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[Executor, list[str]]]:
    return partial(executor_of, folder=tmp_path)


def rows_of(examples: Sequence[Example]) -> Rows:
    return Rows([object()] * len(examples), Tokens.of([[example] for example in examples]), 0)  # type: ignore[list-item]


def computed(executor: Executor, rows: Sequence[Example] = ROWS) -> tuple[float, dict[str, torch.Tensor]]:
    num_supervised = sum(row.num_supervised for row in rows)
    nll, _ = executor.add_gradients(rows, num_supervised, step=3)
    return float(nll) / num_supervised, gradients(executor.model)


def small(executor: Executor, room: int, recomputed: int) -> Small:
    engine = Small(executor.model, CPU)
    engine.room, engine.recomputed, engine.computed = room, recomputed, []
    executor.engine = engine
    return engine


@pytest.mark.parametrize("token_budget", [1, 70, 10_000])
def test_any_cut_has_the_gradient_of_one_conversation_at_a_time(make: Callable[..., Any], token_budget: int) -> None:
    model = build("Llama")
    executor, said = make(model, token_budget)
    assert_same(computed(executor), reference(model, ROWS), DOUBLE)
    assert said == []


def test_the_gradients_of_two_steps_add_up(make: Callable[..., Any]) -> None:
    """Nothing is cleared but what an attempt that failed has left."""
    model = build("Llama")
    executor, _ = make(model, 10_000)
    _, once = computed(executor)
    executor.add_gradients(ROWS, NUM_SUPERVISED, 1)
    _, twice = computed(executor)
    assert all(torch.allclose(twice[name], 2 * gradient) for name, gradient in once.items())


def test_out_of_memory_halves_the_budget_until_the_step_fits(make: Callable[..., Any]) -> None:
    model = build("Llama")
    expected = reference(model, ROWS)
    executor, said = make(model, 480)
    engine = small(executor, room=120, recomputed=120)
    assert_same(computed(executor), expected, DOUBLE)
    cut = "warning: out of memory: the step is cut finer, to {} tokens at a time"
    assert said == [cut.format(budget) for budget in (240, 120)]
    assert executor.budget.state() == {"token_budget": 120, "recompute_layers": 0}
    first = len(engine.computed)
    assert_same(computed(executor), expected, DOUBLE)  # the smaller budget stays, and nothing is tried in vain
    assert (len(said), max(engine.computed[first:]) <= 120) == (2, True)


def test_the_longest_row_alone_is_made_to_fit_by_activation_checkpointing(make: Callable[..., Any]) -> None:
    model = build("Llama").train()
    expected = reference(model, ROWS)
    executor, said = make(model, LONGEST + 1)
    small(executor, room=LONGEST - 2, recomputed=LONGEST)
    assert_same(computed(executor), expected, DOUBLE)
    assert said == [
        f"warning: out of memory: the step is cut finer, to {LONGEST} tokens at a time",
        "warning: out of memory: activation checkpointing in all layers from here on",
    ]
    assert executor.budget.state() == {"token_budget": LONGEST, "recompute_layers": 2}


def test_what_does_not_fit_at_all_is_an_error_that_names_the_row_and_leaves_no_gradient(
    make: Callable[..., Any],
) -> None:
    executor, _ = make(build("Llama"), LONGEST)
    small(executor, room=LONGEST - 2, recomputed=LONGEST - 2)  # a row's last token is no input
    with pytest.raises(TrainingError, match=rf"^step 3: a row of {LONGEST} tokens does not fit into the memory; lower"):
        executor.add_gradients(ROWS, NUM_SUPERVISED, step=3)
    assert gradients(executor.model) == {}


def test_a_repeated_step_draws_the_same_dropout_as_one_that_fitted_at_once(make: Callable[..., Any]) -> None:
    outcomes = []
    for engine, token_budget in ((Engine, max(LONGEST, 60)), (Forgetful, 120)):
        executor, _ = make(build("Llama", torch.float32, dropout=0.2).train(), token_budget, dropout=0.2)
        executor.engine = engine(executor.model, CPU)
        torch.manual_seed(5)
        outcomes.append((*computed(executor), executor.budget.token_budget))
    (loss, expected, budget), (found_loss, found, found_budget) = outcomes
    assert (found_loss, found_budget) == (loss, budget)
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize(("token_budget", "room"), [(1, 10**6), (10_000, 10**6), (480, 120)])
def test_the_loss_of_held_out_rows_is_that_of_a_step_and_forms_no_gradient(
    make: Callable[..., Any], token_budget: int, room: int
) -> None:
    model = build("Llama")
    held_out = ValidationRows(rows_of(ROWS), len(ROWS))
    executor, _ = make(model, 10_000)
    nll, num_correct = executor.add_gradients(ROWS, NUM_SUPERVISED, 1)
    model.zero_grad()
    other, said = make(model, token_budget)
    small(other, room, room)
    with torch.no_grad():
        found, found_correct = other.losses(held_out, 1)
    assert float(found) == pytest.approx(float(nll), rel=DOUBLE)
    assert (int(found_correct), gradients(model), len(said)) == (int(num_correct), {}, 2 if room == 120 else 0)


def test_what_the_model_does_not_allow_is_said_once(make: Callable[..., Any]) -> None:
    model = build("GptOss", torch.float32)
    executor, said = make(model, 10_000)
    computed(executor, ROWS[:2])
    computed(executor, ROWS[:2])
    assert said == [f"info: {note}" for note in Engine(model, CPU).notes]
    assert len(said) == 1
