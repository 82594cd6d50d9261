"""A step that does not fit is cut finer and recomputed, with the same result."""

import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.integration.test_fit import adapter_hash, measurements, resume, stop_at, train
from trainer.config import RunConfig
from trainer.errors import TrainingError
from trainer.runs.checkpoint import Checkpoint
from trainer.training import executor


def fail_at_calls(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Run out of memory in these forward passes, after the packs before them left their gradients."""
    original, calls = executor.Engine.sums, 0

    def sums(self: executor.Engine, pack: Any) -> Any:
        nonlocal calls
        calls += torch.is_grad_enabled()
        if torch.is_grad_enabled() and calls in numbers:
            raise torch.OutOfMemoryError
        return original(self, pack)

    monkeypatch.setattr(executor.Engine, "sums", sums)


def test_the_step_is_cut_finer_and_learns_the_same(
    settings: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"model__dtype": "float32", "memory__token_budget": 60, "training__logging_steps": 1}
    whole, _ = train(settings(run__name="whole", **changes))
    with monkeypatch.context() as patch:
        fail_at_calls(patch, 2)
        cut, _ = train(settings(run__name="cut", **changes))
    messages = [event["message"] for event in cut.events()]
    assert any(message.startswith("out of memory: the step is cut finer, to ") for message in messages)
    for cut_row, row in zip(cut.results(), whole.results(), strict=True):
        assert cut_row == pytest.approx(row, rel=1e-4)
    norms, expected = ([row["grad_norm"] for row in run.metrics()] for run in (cut, whole))
    assert norms == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_run_that_goes_on_keeps_the_smaller_budget(
    settings: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, dropout: float
) -> None:
    changes = {"memory__token_budget": 200, "lora__lora_dropout": dropout, "training__logging_steps": 1}
    with monkeypatch.context() as patch:
        fail_at_calls(patch, 2)
        whole, _ = train(settings(run__name="whole", **changes))
    with monkeypatch.context() as patch:
        fail_at_calls(patch, 2)
        stop_at(patch, 3, signal.SIGTERM)
        stopped, _ = train(settings(run__name="stopped", **changes))
    assert stopped.config().memory.token_budget == 200
    assert Checkpoint(stopped.checkpoints / "step-00000003").state()["plan"]["token_budget"] == 100
    budgets: list[int] = []
    original = executor.Engine.packs
    monkeypatch.setattr(executor.Engine, "packs", lambda self, rows, n: budgets.append(n) or original(self, rows, n))
    resume(stopped)
    assert set(budgets) == {100}
    assert (adapter_hash(stopped), measurements(stopped)) == (adapter_hash(whole), measurements(whole))


def test_the_longest_row_alone_is_made_to_fit_by_computing_layers_again(
    settings: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"memory__token_budget": 1, "training__logging_steps": 1}
    whole, _ = train(settings(run__name="whole", **changes))
    with monkeypatch.context() as patch:
        fail_at_calls(patch, 2)
        again, _ = train(settings(run__name="again", **changes))
    messages = [event["message"] for event in again.events()]
    assert "out of memory: activation checkpointing in all layers from here on" in messages
    last = max(again.checkpoints.glob("step-*"))
    stored = Checkpoint(last).state()["plan"]
    assert (stored["token_budget"], stored["recompute_layers"]) == (1, 4)
    assert (adapter_hash(again), measurements(again)) == (adapter_hash(whole), measurements(whole))


def test_an_evaluation_that_does_not_fit_is_cut_finer_too(
    settings: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"model__dtype": "float32", "memory__token_budget": 1000, "training__logging_steps": 1}
    whole, _ = train(settings(run__name="whole", **changes))
    original, failed = executor.Engine.sums, []

    def sums(self: executor.Engine, pack: Any) -> Any:
        if not torch.is_grad_enabled() and not failed:
            failed.append(pack)
            raise torch.OutOfMemoryError
        return original(self, pack)

    monkeypatch.setattr(executor.Engine, "sums", sums)
    cut, _ = train(settings(run__name="cut", **changes))
    assert failed
    for cut_row, row in zip(cut.results(), whole.results(), strict=True):
        assert cut_row == pytest.approx(row, rel=1e-4)


def test_a_row_that_does_not_fit_alone_ends_the_run_in_words(
    settings: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at_calls(monkeypatch, *range(1, 20))
    with pytest.raises(TrainingError, match=r"step 1: a row of \d+ tokens does not fit into the memory; lower"):
        train(settings())
