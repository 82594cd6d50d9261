"""The learning rate of each step: it rises over the warm-up, then falls as the config says, and is never 0."""

import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def make_schedule(optimizer: Optimizer, kind: str, warmup_steps: int, total_steps: int) -> LambdaLR:
    """Sets the optimizer's rate for step 1, and for the next step at each call of its `step`."""
    return LambdaLR(optimizer, partial(share_of_rate, kind=kind, warmup_steps=warmup_steps, total_steps=total_steps))


def share_of_rate(steps_done: int, kind: str, warmup_steps: int, total_steps: int) -> float:
    """The share of the run's learning rate that the step after `steps_done` trains with.

    Step k of n warm-up steps has k / (n + 1), and the first step after them all of it.
    """
    if steps_done < warmup_steps:
        return (steps_done + 1) / (warmup_steps + 1)
    falling = max(1, total_steps - warmup_steps)
    match kind:
        case "linear":
            return max(0.0, (total_steps - steps_done) / falling)
        case "cosine":
            return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((steps_done - warmup_steps) / falling))))
        case _:
            return 1.0
