"""Speed is measured over the time that training took, and nothing else."""

from typing import Any

import pytest
import torch

from trainer.training import meter as metering
from trainer.training.meter import Meter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(metering.time, "monotonic", lambda: now[0])
    return now


def step(meter: Meter, clock: list[float], seconds: float = 2.0) -> None:
    meter.start()
    meter.add(torch.tensor(3.0), torch.tensor(1), num_supervised=3, num_tokens=10)
    clock[0] += seconds


def speed(meter: Meter) -> Any:
    return meter.read().rest["tokens_per_second"]


def test_loading_and_evaluating_are_no_training(clock: list[float]) -> None:
    meter = Meter(torch.device("cpu"))
    clock[0] += 50
    step(meter, clock)
    step(meter, clock)
    assert speed(meter) == 5
    meter.pause()
    clock[0] += 50
    step(meter, clock)
    assert speed(meter) == 5


def test_the_time_between_two_steps_counts(clock: list[float]) -> None:
    meter = Meter(torch.device("cpu"))
    step(meter, clock)
    clock[0] += 2
    step(meter, clock)
    assert speed(meter) == pytest.approx(20 / 6)


def test_tokens_of_before_a_resume_keep_their_time(clock: list[float]) -> None:
    before = Meter(torch.device("cpu"))
    step(before, clock)
    after = Meter(torch.device("cpu"))
    after.restore(before.state())
    clock[0] += 1000
    step(after, clock)
    assert speed(after) == 5
