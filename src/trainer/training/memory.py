"""The plan of a run's memory: how many tokens go through the model at a time, and which layers are recomputed.

Small packs repeat what conversations share, and recomputing a layer costs a forward pass of it. Which of the two
costs less depends on the rows, so each way that fits is weighed on some steps of the run itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from trainer.config.schema import MemoryConfig, ModelConfig, RunConfig
from trainer.data.pack.packing import PACK_COST, Pack, Sharing, make_packs
from trainer.data.pack.pairs import make_pair_packs
from trainer.data.render.rendering import Example
from trainer.errors import ConfigError
from trainer.kinds import learns_from_pairs
from trainer.model.base import Base
from trainer.model.checkpointing import recomputable
from trainer.model.quantization import left_out, own_settings
from trainer.model.sharding import can_start_over
from trainer.model.shares import percent
from trainer.model.sharing import sharing_of
from trainer.training.dataset import TrainingData
from trainer.training.footprint import Footprint, footprint, weights_bytes

if TYPE_CHECKING:
    import torch

USABLE = {"cpu": 0.5, "cuda": 0.85}  # of the free memory: a CPU shares it, a GPU's is in pieces
MAX_BUDGET = {"cpu": 4096, "cuda": 32_768}  # beyond this more tokens at a time bring no speed
PACK_COSTS = {"cpu": PACK_COST, "cuda": 512}  # in tokens, when budgets are weighed; of a GPU not measured
RECOMPUTE_COST = 0.35  # of a step without its head; measured on a CPU: 0.24 in float32, 0.35 in bfloat16
READ_COST = 0.5  # of a step, to read its tokens first: the backward pass through a frozen base is about as long
SAMPLED_STEPS = 4
MOST_LEFT_OUT = 0.1  # of the weights that a quantization is for
FINER = 2**0.5  # between two budgets that are weighed
# Of a CPU's process, beside what training allocates: libraries that only training loads, and, where the weights have 16
# bits, what the processor's matrix library keeps of them in an order of its own (seen with AMX: 1.9 GB, where all else
# comes to 1.2).
LATER_BYTES = 150 * 2**20
REORDERED = 2.5


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """A way to fit, and the peak that it is expected to have."""

    footprint: Footprint
    free_bytes: int  # or `memory.limit_gb`, where that is less
    token_budget: int
    recompute_layers: int
    peak_bytes: int

    @property
    def num_shards(self) -> int:
        """Processes that the base's layers are sharded over; 1 where each holds all of them."""
        return self.footprint.num_shards

    def problem(self, longest: int) -> str | None:
        """The reason why the run does not fit or cannot be as it was set, or None."""
        most = self.footprint.num_recomputable
        if self.recompute_layers > most:
            return f"memory.recompute_layers: is {self.recompute_layers}, expected at most {most} for this model"
        if self.footprint.fixed > self.free_bytes:
            sharded = f", sharded over {self.num_shards} processes," if self.num_shards > 1 else ""
            advice = "use more processes" if sharded else "set model.quantization to nf4"
            return (
                f"model.base: the weights{sharded} need about {gib(self.footprint.fixed)}, and {gib(self.free_bytes)} "
                f"are free; {advice} or choose a smaller base"
            )
        needed = self.footprint.peak(longest, longest, most)
        if needed > self.free_bytes:
            return (
                f"data.max_length: the longest row ({longest:,} tokens) needs about {gib(needed)}, and "
                f"{gib(self.free_bytes)} are free; lower max_length, or set model.quantization to nf4"
            )
        return None


def process_bytes(plan: MemoryPlan, held_bytes: int, has_16_bits: bool) -> int:
    """The peak that `top` will show of a process on a CPU, where it holds `held_bytes` before training.

    A comparison is below that: it loads the base once more, after what training held was given back.
    """
    reordered = int(REORDERED * plan.footprint.weights) if has_16_bits else 0
    return held_bytes + LATER_BYTES + plan.peak_bytes + reordered


@dataclass(frozen=True, slots=True)
class Work:
    """The part of a run's computation that its memory depends on."""

    longest: int  # tokens of the longest row
    largest_step: int  # tokens of the most that a step can hold
    most_supervised: int  # tokens of a step
    steps: Sequence[Sequence[Example]]  # some of them, to weigh what sharing saves
    sharing: Sharing
    has_pairs: bool = False  # each two examples of a step are the answers of a pair

    def num_computed(self, step: Sequence[Example], token_budget: int, pack_cost: int) -> float:
        """Tokens that a step computes, with those that its packs cost; of a pair that is cut some are read before."""
        if not self.has_pairs:
            return _size(make_packs(step, token_budget, self.sharing), pack_cost)
        pairs = [((preferred,), (other,)) for preferred, other in zip(step[::2], step[1::2], strict=True)]
        packs = make_pair_packs(pairs, token_budget, self.sharing)
        return _size(packs.whole, pack_cost) + (1 + READ_COST) * _size(packs.cut, pack_cost)


def _size(packs: Sequence[Pack], pack_cost: int) -> int:
    return sum(len(pack.input_ids) + pack_cost for pack in packs)


def find_work(data: TrainingData, batch_size: int, sharing: Sharing, has_pairs: bool = False) -> Work:
    """The work of steps of `batch_size` rows; rows stand in a file in no order that a step would have."""
    largest, supervised = (
        int(np.sort(counts)[-batch_size:].sum()) for counts in (data.train.num_tokens, data.train.num_supervised)
    )
    rows = Random(0).sample(data.train, min(len(data.train), SAMPLED_STEPS * batch_size))
    steps = [
        [example for row in rows[start : start + batch_size] for example in row.examples]
        for start in range(0, len(rows), batch_size)
    ]
    return Work(data.longest, largest, supervised, steps, sharing, has_pairs)


def fit_memory(
    config: RunConfig,
    base: Base,
    dtype: "torch.dtype",
    device: "torch.device",
    data: TrainingData,
    batch_size: int,
    free_bytes: int,
    num_processes: int,
    has_flex: bool | None = None,
) -> MemoryPlan:
    """The plan for `num_processes` that have `free_bytes` each: the base whole in each of them, or else sharded.

    Raises: ConfigError, where it is to be sharded and cannot.
    """
    work = find_work(data, batch_size, sharing_of(base.skeleton)[0], learns_from_pairs(config.training.method))

    def plan(num_shards: int) -> MemoryPlan:
        shape = footprint(config, base, dtype, device, work.longest, has_flex, num_shards)
        return plan_memory(shape, config.memory, device.type, free_bytes, work)

    if config.memory.shard_base is False:
        return plan(1)
    hindrance = _hindrance(config, base, num_processes)
    if config.memory.shard_base is True:
        if hindrance is not None:
            raise ConfigError(f"memory.shard_base: is true, {hindrance}; set it to false or auto")
        return plan(num_processes)
    whole = plan(1)
    return whole if hindrance is not None or whole.problem(work.longest) is None else plan(num_processes)


def _hindrance(config: RunConfig, base: Base, num_processes: int) -> str | None:
    """The reason why the base cannot be sharded, or None."""
    if config.model.quantization != "none":
        return f"and model.quantization is {config.model.quantization!r}, expected an unquantized base"
    if num_processes == 1:
        return "and one process trains, expected several: one for each GPU, or as many as TRAINER_PROCESSES says"
    if not recomputable(base.skeleton):
        return f"and the layers of a {base.config.model_type!r} model are not known, expected another base"
    if not can_start_over():
        return "and this torch cannot recover from a pass that ran out of memory, expected torch 2.13 or newer"
    return None


def partly_quantized(base: Base, settings: ModelConfig, dtype: "torch.dtype", device: "torch.device") -> str | None:
    """The problem of a quantization that leaves out much of what it is for, unless that is accepted; or None."""
    scheme, model = settings.quantization, base.skeleton
    if scheme == "none" or settings.quantize_partly or own_settings(base.config):
        return None
    missed, meant = left_out(model, settings)
    if missed <= MOST_LEFT_OUT * meant:
        return None
    number_format = str(dtype).removeprefix("torch.")
    needs = {name: gib(weights_bytes(base, name, dtype, device)) for name in ("none", "nf4", "int8")}
    better = left_out(model, settings.model_copy(update={"quantization": "nf4"}))
    ways = [f"set model.quantization to nf4 ({needs['nf4']})"] if better[0] <= MOST_LEFT_OUT * meant else []
    ways += [f"leave it out ({needs['none']})", "accept it with model.quantize_partly=true"]
    return (
        f"model.quantization: {scheme} would leave {percent(missed, meant)} of the layers and experts of {base.name!r} "
        f"in {number_format}, expected at most {MOST_LEFT_OUT:.0%}: it has no form for these experts; the "
        f"weights would need about {needs[scheme]}; {', or '.join(ways)}"
    )


def plan_memory(footprint: Footprint, settings: MemoryConfig, kind: str, free_bytes: int, work: Work) -> MemoryPlan:
    """The way that computes least, of those that fit on a device of this `kind`; else the one that needs least.

    For each budget, no more layers are recomputed than must be. What `settings` fix stays as it is.
    """
    limit = free_bytes if settings.limit_gb is None else min(free_bytes, int(settings.limit_gb * 2**30))
    usable = min(int(free_bytes * USABLE[kind]), limit)

    def peak(budget: int, layers: int) -> int:
        trained = max(work.longest, min(budget, work.largest_step))
        scored = min(trained, work.most_supervised)
        return max(footprint.peak(trained, scored, layers), footprint.evaluating(max(work.longest, budget)))

    def cost(budget: int, layers: int) -> float:
        tokens = sum(work.num_computed(step, budget, PACK_COSTS[kind]) for step in work.steps)
        return tokens * (1 + RECOMPUTE_COST * layers / footprint.num_layers)

    budgets, counts = _budgets(settings, kind, work.longest), _counts(settings, footprint)
    fewest = {budget: next((n for n in counts if peak(budget, n) <= usable), None) for budget in budgets}
    ways = [(budget, layers) for budget, layers in fewest.items() if layers is not None]
    way = min(ways, key=lambda way: cost(*way)) if ways else (budgets[-1], counts[-1])
    return MemoryPlan(footprint, limit, *way, peak(*way))


def _budgets(settings: MemoryConfig, kind: str, longest: int) -> list[int]:
    """From the largest to the smallest; a row longer than a budget is a pack of its own, so none is smaller."""
    if settings.token_budget != "auto":
        return [settings.token_budget]
    budgets = [max(longest, MAX_BUDGET[kind])]
    while budgets[-1] > longest:
        budgets.append(max(longest, int(budgets[-1] / FINER)))
    return budgets


def _counts(settings: MemoryConfig, footprint: Footprint) -> Sequence[int]:
    """Numbers of recomputed layers to try, the smallest first."""
    if settings.recompute_layers != "auto":
        return [settings.recompute_layers]
    return range(footprint.num_recomputable + 1)


def gib(num_bytes: float) -> str:
    """Bytes for people."""
    return f"{num_bytes / 2**30:,.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:,.0f} MiB"
