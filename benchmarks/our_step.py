"""An optimizer step of this trainer as a run takes it: packs, sums over the processes, clipping, AdamW.

Imports the engine, so arms that measure the time until they are ready import it late.
"""

from collections.abc import Sequence
from typing import Any

import torch
from shapes import LEARNING_RATE

from trainer.data.pack.balancing import balanced
from trainer.data.pack.packing import Pack
from trainer.data.render.rendering import Example
from trainer.model.adapter import trainable
from trainer.model.sharing import UNSHARED
from trainer.model.tree_attention import Kind
from trainer.training.engine import Engine
from trainer.training.ranks import Ranks

LONGEST_GRADIENT = 1.0


class Updates:
    """AdamW on an adapter's clipped gradient: the second half of a step, the same for each arm without a loop."""

    def __init__(self, model: Any) -> None:
        self.weights = list(trainable(model).values())
        self.optimizer = torch.optim.AdamW(self.weights, lr=LEARNING_RATE, fused=True)

    def __call__(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.weights, LONGEST_GRADIENT)
        self.optimizer.step()
        self.optimizer.zero_grad()


class OurStep:
    """Forward and backward of whole steps; with several processes each computes its share, sharded base or not."""

    def __init__(
        self,
        model: Any,
        device: torch.device,
        token_budget: int,
        layers: int = 0,
        kind: Kind | None = None,
        ranks: Ranks | None = None,
        sharded: bool = False,
    ) -> None:
        """`layers` are recomputed; `kind` of attention: by default the fastest that model and device have."""
        self.device, self.token_budget, self.sharded = device, token_budget, sharded
        self.ranks = ranks or Ranks()
        self.engine = Engine(model, device, self.ranks, kind)
        self.engine.recompute(layers)
        self.weights = list(trainable(model).values())

    def add_gradients(self, examples: Sequence[Example]) -> torch.Tensor:
        """Add the gradient of all processes; returns this one's share of the loss, on the device."""
        total, loss = sum(example.num_supervised for example in examples), torch.zeros((), device=self.device)
        for pack in self._packs(examples):
            nll = self.engine.sums(pack).nll / total
            nll.backward()
            loss += nll.detach()
        if self.ranks.size > 1:
            for weight in self.weights:  # of a process without a pack
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
            self.ranks.add_up([weight.grad for weight in self.weights if weight.grad is not None])
        return loss

    def _packs(self, examples: Sequence[Example]) -> list[Pack]:
        parts = balanced(examples, self.ranks.size, shared=self.engine.sharing != UNSHARED)
        packs = self.engine.packs(parts[self.ranks.rank], self.token_budget)
        if self.sharded:  # each process gathers every layer, so all compute equally many packs
            packs += [self.engine.idle] * (self.ranks.most(len(packs)) - len(packs))
        return packs
