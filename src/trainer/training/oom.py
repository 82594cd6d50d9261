"""Running out of memory is no end: the step is cut finer in all processes, and computed again with the same result."""

from collections.abc import Mapping
from typing import Any

import torch

from trainer.errors import TrainingError
from trainer.training.engine import Engine
from trainer.training.plan import MEMORY, Plan


class Room:
    """The plan's token budget and recomputed layers, and what became of them when memory ran out."""

    def __init__(self, plan: Plan) -> None:
        self.token_budget, self.recompute_layers = plan.token_budget, plan.recompute_layers

    def cut_finer(self, engine: Engine, longest: int, step: int) -> str:
        """Halve the budget, or where it holds but the longest row, compute all layers again; returns it in words.

        Raises: TrainingError, when nothing is left to do.
        """
        torch.cuda.empty_cache()
        if self.token_budget > longest:
            self.token_budget = max(longest, self.token_budget // 2)
            return f"out of memory: the step is cut finer, to {self.token_budget:,} tokens at a time"
        if self.recompute_layers < engine.num_recomputable:
            self.recompute_layers = engine.num_recomputable
            engine.recompute(self.recompute_layers)
            return "out of memory: from here on all layers are computed again in the backward pass"
        raise TrainingError(
            f"step {step}: a row of {longest:,} tokens does not fit into the memory; lower data.max_length, or set "
            "model.quantization to nf4"
        )

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {name: getattr(self, name) for name in MEMORY}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.token_budget, self.recompute_layers = (state[name] for name in MEMORY)
