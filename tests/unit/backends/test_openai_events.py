"""Figures in the text of an event, for services that put them nowhere else."""

from typing import Any

import pytest

from trainer.backends.openai.metrics import in_text
from trainer.backends.openai.mirror import is_told, time_of


@pytest.mark.parametrize(
    ("message", "figures"),
    [
        ("Step 31/40: training loss=0.07, validation loss=0.61, full validation loss=0.53",
         {"step": 31, "total_steps": 40, "train_loss": 0.07, "valid_loss": 0.61, "full_valid_loss": 0.53}),
        ("Step 10: training loss=3.6e-2", {"step": 10, "train_loss": 0.036}),
        ("Step 3/4: training loss=1.5.", {"step": 3, "total_steps": 4, "train_loss": 1.5}),
        ("Job started.", {}),
        ("Checkpoint created at step 5", {}),
    ],
)  # fmt: skip
def test_figures(message: str, figures: dict[str, float]) -> None:
    assert in_text(message) == figures


def test_a_time_that_is_none_is_no_failure() -> None:
    assert time_of(1_700_000_000) == "2023-11-14T22:13:20.000+00:00"
    assert time_of(None) == time_of(1e30) == time_of("soon") == "1970-01-01T00:00:00.000+00:00"


def test_of_thousands_of_steps_about_a_hundred_are_told_and_of_messages_all() -> None:
    def event(**data: float) -> dict[str, Any]:
        return {"type": "metrics" if data else "message", "message": "", "data": data}

    for total in (1, 45, 100, 6000, 60_001):
        told = [step for step in range(1, total + 1) if is_told(event(step=step, total_steps=total))]
        assert {1, total} <= set(told)
        assert len(told) <= 102
        assert total > 100 or len(told) == total
    assert len([step for step in range(1, 5001) if is_told(event(step=step))]) == 101
    assert is_told(event())
