"""The compute of one rank: its packs of a step or an evaluation, their sums, and finer packs where memory runs out.

Running out of memory ends nothing: all ranks cut the step finer and compute it once more, with the same result.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, TypeVar

import torch
from peft import PeftModel

from trainer.config.schema import RunConfig
from trainer.data.pack.balancing import balanced
from trainer.data.pack.packing import Pack
from trainer.data.render.rendering import Example
from trainer.errors import TrainingError
from trainer.model.adapter import trainable
from trainer.model.sharding import start_over
from trainer.model.sharing import UNSHARED
from trainer.training.engine import Engine
from trainer.training.plan import MEMORY, TrainingPlan
from trainer.training.ranks import Ranks
from trainer.training.validation import ValidationRows
from trainer.training.writer import restore_rng, rng_state

T = TypeVar("T")


class Say(Protocol):
    """Tells the user and the run's events."""

    def __call__(self, message: str, level: Any = ...) -> None: ...


class MemoryBudget:
    """The token budget and the recomputed layers: at first the plan's, tighter after memory ran out."""

    def __init__(self, plan: TrainingPlan) -> None:
        self.token_budget, self.recompute_layers = plan.token_budget, plan.recompute_layers

    def tighten(self, engine: Engine, longest: int, step: int) -> str:
        """Halve the token budget, or where it holds but the longest row, recompute all layers; returns it in words.

        Raises: TrainingError, when nothing is left to do.
        """
        torch.cuda.empty_cache()
        if self.token_budget > longest:
            self.token_budget = max(longest, self.token_budget // 2)
            return f"out of memory: the step is cut finer, to {self.token_budget:,} tokens at a time"
        if self.recompute_layers < engine.num_recomputable:
            self.recompute_layers = engine.num_recomputable
            engine.recompute(self.recompute_layers)
            return "out of memory: activation checkpointing in all layers from here on"
        raise TrainingError(
            f"step {step}: a row of {longest:,} tokens does not fit into the memory; lower data.max_length, or set "
            "model.quantization to nf4"
        )

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {name: getattr(self, name) for name in MEMORY}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.token_budget, self.recompute_layers = (state[name] for name in MEMORY)


class Executor:
    """Computes gradients and losses on this rank, and sums both over all ranks."""

    def __init__(
        self,
        model: PeftModel,
        device: torch.device,
        config: RunConfig,
        plan: TrainingPlan,
        ranks: Ranks,
        backward: Callable[[torch.Tensor], None],
        say: Say,
    ) -> None:
        self.model, self.device, self.ranks = model, device, ranks
        self.is_sharded, self.has_dropout = config.memory.shard_base, config.lora.lora_dropout > 0
        self.budget = MemoryBudget(plan)
        self._backward, self._say = backward, say

    @cached_property
    def engine(self) -> Engine:
        """Made at the first step. Its notes say what the model does not allow."""
        engine = Engine(self.model, self.device, self.ranks)
        engine.recompute(self.budget.recompute_layers)
        for note in engine.notes:
            self._say(note)
        return engine

    def add_gradients(
        self, examples: Sequence[Example], num_supervised: int, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward and backward of a whole step; returns its summed loss and its correct tokens, on the device.

        Raises: TrainingError, when the longest example alone does not fit into the memory.
        """

        def compute() -> tuple[torch.Tensor, torch.Tensor]:
            nll, num_correct = self._zero(torch.float32), self._zero(torch.int64)
            for pack in self._in_step(self._own_packs(examples)):
                sums = self.engine.sums(pack)
                self._backward(sums.nll / num_supervised)
                nll += sums.nll.detach()
                num_correct += sums.num_correct
            return nll, num_correct

        sums = self._within_memory(compute, lambda: max(len(example.input_ids) for example in examples), step)
        if self.ranks.size > 1:
            self.ranks.add_up([*self._gradients(), *sums])
        return sums

    def losses(self, rows: ValidationRows, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The summed loss of held-out rows and their correct tokens. Raises: TrainingError, like `add_gradients`."""

        def compute() -> tuple[torch.Tensor, torch.Tensor]:
            nll, num_correct = self._zero(torch.float64), self._zero(torch.int64)
            for pack in self._in_step(rows.packs(self.budget.token_budget, self._own_packs)):
                sums = self.engine.sums(pack)
                nll += sums.nll
                num_correct += sums.num_correct
            return nll, num_correct

        sums = self._within_memory(compute, rows.longest, step)
        self.ranks.add_up(sums)
        return sums

    def _within_memory(self, compute: Callable[[], T], longest: Callable[[], int], step: int) -> T:
        """The result of `compute`, which is called once more with a tighter budget wherever memory runs out.

        `longest` counts the tokens of the longest example.
        """
        engine = self.engine  # made before the first try, since the ranks agree on what it finds
        while True:
            rng = rng_state() if self.has_dropout else None
            if (result := self.ranks.tried(compute)) is not None:
                return result
            start_over(self.model.get_base_model())
            self.model.zero_grad()
            self._say(self.budget.tighten(engine, longest(), step), level="warning")
            if rng is not None:
                restore_rng(rng)

    def _own_packs(self, examples: Sequence[Example]) -> list[Pack]:
        """The part of this rank of the examples that all ranks compute together."""
        parts = balanced(examples, self.ranks.size, shared=self.engine.sharing != UNSHARED)
        return self.engine.packs(parts[self.ranks.rank], self.budget.token_budget)

    def _in_step(self, packs: list[Pack]) -> list[Pack]:
        """With a sharded base all ranks compute equally many packs: each layer is gathered from all of them."""
        if not self.is_sharded:
            return packs
        self.ranks.will_come()
        return packs + [self.engine.idle] * (self.ranks.most(len(packs)) - len(packs))

    def _gradients(self) -> list[torch.Tensor]:
        """The adapter's gradients, of zeros where this rank had nothing to compute."""
        parameters = list(trainable(self.model).values())
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in parameters if parameter.grad is not None]

    def _zero(self, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros((), dtype=dtype, device=self.device)
