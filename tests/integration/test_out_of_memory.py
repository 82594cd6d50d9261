"""A step that does not fit is cut finer and computed again, with the same result."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.integration.test_fit import train
from trainer.config import RunConfig
from trainer.errors import TrainingError
from trainer.training import sft


def fail_at_calls(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Run out of memory in these forward passes, after the packs before them left their gradients."""
    original, calls = sft.Engine.sums, 0

    def sums(self: sft.Engine, pack: Any) -> Any:
        nonlocal calls
        calls += torch.is_grad_enabled()
        if torch.is_grad_enabled() and calls in numbers:
            raise torch.OutOfMemoryError
        return original(self, pack)

    monkeypatch.setattr(sft.Engine, "sums", sums)


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


def test_a_row_that_does_not_fit_alone_ends_the_run_in_words(
    settings: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at_calls(monkeypatch, *range(1, 20))
    with pytest.raises(TrainingError, match=r"step 1: a row of \d+ tokens does not fit into the memory; lower"):
        train(settings())
