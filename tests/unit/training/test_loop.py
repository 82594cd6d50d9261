"""The loop measures, saves and stops at the steps of the plan, and what it measures is what one row at a time gives."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
import torch

from tests.conftest import CHATML, make_settings, make_tokenizer, talk
from tests.unit.training.test_engine import SINGLE, build, reference
from tests.unit.training.test_executor import ROWS
from trainer.errors import TrainingError
from trainer.model.adapter import adapter_tensors, trainable
from trainer.runs import Run
from trainer.runs.checkpoint import Checkpoint, folder_of, list_checkpoints
from trainer.runs.lock import Lock
from trainer.training.dataset import Rows
from trainer.training.loop import Trainer
from trainer.training.plan import TrainingPlan
from trainer.training.ranks import Ranks
from trainer.training.tokens import Tokens

pytestmark = pytest.mark.apart

PLAN = TrainingPlan(
    n_epochs=3, batch_size=2, steps_per_epoch=4, total_steps=12, warmup_steps=2, learning_rate=1e-3, seed=3,
    max_length=512, token_budget=100, recompute_layers=0, logging_steps=3, eval_steps=5, save_steps=7,
)  # fmt: skip
KEEP_ALL = {"training__save_total_limit": 100}
NUM_TOKENS = sum(len(row.input_ids) for row in ROWS)


class Seen:
    """A display that notes its steps, and does what a test asks for after a step."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.after: dict[int, Callable[[], None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def step(self, step: int, measured: dict[str, float]) -> None:
        self.steps.append(step)
        self.after.get(step, lambda: None)()

    def say(self, message: str) -> None:
        pass


def rows_of(count: int) -> Rows:
    conversations = [talk(("user", "a"), ("assistant", "b"))] * count
    return Rows(conversations, Tokens.of([[row] for row in ROWS[:count]]), 0)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[Trainer, Seen]]:
    """A training of 8 rows in steps of two, that is evaluated on three of them; the name is that of its run."""

    def make(
        plan: TrainingPlan = PLAN, name: str = "run", dropout: float = 0.0, **changes: Any
    ) -> tuple[Trainer, Seen]:
        config = make_settings(tmp_path)(memory__shard_base=False, **KEEP_ALL | changes)
        run, seen = Run(tmp_path / name), Seen()
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        special = ["<|im_start|>", "<|im_end|>"]
        tokenizer = make_tokenizer(CHATML, special, eos_token=special[1], pad_token=special[1])
        memory = {"memory.token_budget": plan.token_budget, "memory.recompute_layers": 0}
        trainer = Trainer(
            build("Llama", torch.float32, dropout=dropout), tokenizer, config, plan, rows_of(8), rows_of(3),
            {"rows.jsonl": 1.0}, run, Lock(), memory, Ranks(), seen,
        )  # fmt: skip
        return trainer, seen

    return make


def trained(trainer: Trainer, checkpoint: Path | None = None) -> Trainer:
    torch.manual_seed(1)
    with trainer.saver.writer:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return trainer


def saved(trainer: Trainer) -> list[int]:
    return [checkpoint.step for checkpoint in list_checkpoints(trainer.run.checkpoints)]


def test_it_logs_evaluates_saves_and_ends_at_the_steps_of_the_plan(make: Callable[..., Any]) -> None:
    trainer, seen = make()
    trained(trainer)
    assert (seen.steps, trainer.state.global_step, trainer.finished) == (list(range(1, 13)), 12, True)
    rows = trainer.run.results()
    steps = {name: [int(row["step"]) for row in rows if name in row] for name in rows[-1]}
    assert steps["train_loss"] == [3, 4, 6, 8, 9, 12]  # each third, and at the end of an epoch
    assert steps["valid_loss"] == [4, 5, 8, 10, 12]
    assert steps["full_valid_loss"] == [4, 8, 12]
    best = {
        step for step, _, loss in trainer.curve.points if all(loss < p[2] for p in trainer.curve.points if p[0] < step)
    }
    assert saved(trainer) == sorted({4, 7, 8, 12} | best)
    assert all(checkpoint.problem() is None for checkpoint in list_checkpoints(trainer.run.checkpoints))
    metrics = list(trainer.run.metrics())
    assert [row["step"] for row in metrics] == steps["train_loss"]
    assert [row["num_tokens"] for row in metrics if row["step"] % 4 == 0] == [
        NUM_TOKENS,
        2 * NUM_TOKENS,
        3 * NUM_TOKENS,
    ]


def test_a_step_s_loss_and_gradient_are_those_of_its_rows_alone(make: Callable[..., Any]) -> None:
    trainer, _ = make(replace(PLAN, logging_steps=1, total_steps=1), training__max_grad_norm=1e9)
    trainer.order.set_epoch(0)
    loss, gradient = reference(trainer.model, [ROWS[number] for number in next(iter(trainer.order))])
    trained(trainer)
    norm = torch.stack([part.norm() for part in gradient.values()]).norm()
    assert trainer.run.results()[0]["train_loss"] == pytest.approx(loss, rel=SINGLE)
    (metrics,) = trainer.run.metrics()
    assert metrics["grad_norm"] == pytest.approx(float(norm), rel=SINGLE)
    assert (metrics["learning_rate"], saved(trainer)) == (PLAN.learning_rate / 3, [1])  # of two warm-up steps the first


def test_a_logged_loss_is_the_mean_over_the_tokens_since_the_last_one(make: Callable[..., Any]) -> None:
    """Two runs that learn the same: one reads its meter each step, the other each third."""
    often, rarely = (
        trained(make(replace(PLAN, n_epochs=1, total_steps=4, logging_steps=n), name=f"of-{n}")[0]) for n in (1, 3)
    )
    single = {int(row["step"]): row["train_loss"] for row in often.run.results() if "train_loss" in row}
    counts = [row["num_supervised_tokens"] for row in often.run.metrics()]
    tokens = {step: count - ([0, *counts])[step - 1] for step, count in enumerate(counts, 1)}
    before = 0
    for row in rarely.run.results():
        if "train_loss" in row:
            steps = range(before + 1, int(row["step"]) + 1)
            mean = sum(single[step] * tokens[step] for step in steps) / sum(tokens[step] for step in steps)
            assert row["train_loss"] == pytest.approx(mean, rel=1e-6)
            before = int(row["step"])
    assert before == 4


def test_it_stops_early_after_as_many_evaluations_without_a_better_one(make: Callable[..., Any]) -> None:
    plan = replace(PLAN, eval_steps=2)
    patience = {"training__early_stopping_patience": 2, "training__early_stopping_threshold": 100.0}
    trainer = trained(make(plan, **patience)[0])
    assert (trainer.state.global_step, trainer.stopped_early, trainer.finished) == (6, True, True)
    assert saved(trainer) == [2, 4, 6]
    newest = Checkpoint(folder_of(trainer.run.checkpoints, 6))
    assert make(plan, **patience)[0].was_finished_at(newest)
    assert not make(plan)[0].was_finished_at(newest)  # without the patience there is more to train
    assert not make(plan, **patience)[0].was_finished_at(Checkpoint(folder_of(trainer.run.checkpoints, 4)))


def test_stopped_after_a_step_it_resumes_as_if_it_had_not_been(make: Callable[..., Any]) -> None:
    dropout, stop = 0.2, 5
    whole = trained(make(name="whole", dropout=dropout)[0])
    stopped, seen = make(name="stopped", dropout=dropout)
    seen.after[stop] = stopped.stop_after_step
    trained(stopped)
    assert (seen.steps[-1], stopped.finished, saved(stopped)[-1]) == (stop, False, stop)
    resumed, seen = make(name="stopped", dropout=dropout)
    trained(resumed, folder_of(resumed.run.checkpoints, stop))
    assert (seen.steps, resumed.finished) == (list(range(stop + 1, 13)), True)
    weights, expected = adapter_tensors(resumed.model), adapter_tensors(whole.model)
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    assert (resumed.run.results(), resumed.curve) == (whole.run.results(), whole.curve)


@pytest.mark.parametrize("request_", ["pause", "cancel"])
def test_a_request_is_heard_after_the_step(make: Callable[..., Any], request_: Any) -> None:
    trainer, seen = make()
    trainer.run.ask(request_)
    trained(trainer)
    assert (seen.steps, trainer.request, trainer.finished, saved(trainer)) == ([1], request_, False, [1])


def test_a_run_that_another_process_took_over_writes_nothing_more(make: Callable[..., Any]) -> None:
    trainer, seen = make()
    seen.after[6] = lambda: setattr(trainer.lock, "lost", True)
    with pytest.raises(TrainingError, match=r"^step 7: another process took over the run"):
        trained(trainer)
    assert (seen.steps[-1], max(saved(trainer)) < 6, trainer.run.results()[-1]["step"]) == (6, True, 6)


def test_a_gradient_that_is_not_finite_ends_the_run_before_it_is_saved(make: Callable[..., Any]) -> None:
    trainer, seen = make(replace(PLAN, logging_steps=12))
    weight = next(iter(trainable(trainer.model).values()))
    seen.after[6] = lambda: weight.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        trained(trainer)
    assert max(saved(trainer)) < 7
