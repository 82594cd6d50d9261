"""The learning rate of each step, and where the schedule stands."""

import math

import pytest
import torch
from transformers import get_scheduler

from trainer.training.arguments import make_schedule, share_of_rate

KINDS = ("linear", "cosine", "constant")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("total", [1, 2, 3, 10, 101])
@pytest.mark.parametrize("ratio", [0.0, 0.03, 0.5, 0.99])
def test_no_step_has_the_rate_0_and_the_warm_up_only_rises(kind: str, total: int, ratio: float) -> None:
    warmup = math.ceil(ratio * total)
    shares = [share_of_rate(done, kind, warmup, total) for done in range(total)]
    assert all(0 < share <= 1 for share in shares)
    assert shares[:warmup] == [step / (warmup + 1) for step in range(1, warmup + 1)]
    assert shares[warmup : warmup + 1] in ([1.0], [])
    assert shares[warmup:] == sorted(shares[warmup:], reverse=True)


@pytest.mark.parametrize("kind", KINDS)
def test_after_the_warm_up_it_is_transformers_own_to_the_last_bit(kind: str) -> None:
    """So that a run that was started before continues as it would have."""
    name = "constant_with_warmup" if kind == "constant" else kind
    optimizers = [torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-4) for _ in range(2)]
    ours = make_schedule(optimizers[0], kind, 7, 90)
    theirs = get_scheduler(name, optimizers[1], num_warmup_steps=7, num_training_steps=90)
    for step in range(90):
        if step >= 7:
            assert ours.get_last_lr() == theirs.get_last_lr()
        for optimizer, schedule in zip(optimizers, (ours, theirs), strict=True):
            optimizer.step()
            schedule.step()
