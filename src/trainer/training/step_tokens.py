"""Tokens that the steps of an epoch compute: with shared beginnings once, without sharing, and padded."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.config.schema import RunConfig
from trainer.data.files.stats import StepTokens, TokenMeasure
from trainer.data.pack.packing import Pack, Sharing, make_packs
from trainer.data.render.rendering import Example
from trainer.training.memory import MAX_BUDGET
from trainer.training.order import StepOrder
from trainer.training.plan import DEFAULT_SEED, find_batch_size
from trainer.training.prepare import Preprocessing, load_preprocessing

if TYPE_CHECKING:
    import torch

COUNTED_STEPS = 64  # of an epoch, evenly spaced


def token_counter(config: RunConfig) -> TokenMeasure:
    """Counter of tokens as the config's model reads rows. Raises: MissingDependency, ConfigError."""
    found = load_preprocessing(config)

    def count(rows: Sequence[Sequence[Example]]) -> StepTokens:
        return count_step_tokens(rows, found)

    return TokenMeasure(found.renderer, found.max_length, count)


def count_step_tokens(rows: Sequence[Sequence[Example]], found: Preprocessing) -> StepTokens:
    """The tokens of the first epoch's steps, extrapolated from COUNTED_STEPS where there are more.

    The packs hold as many tokens as the config says, or as a plan takes that has memory enough.
    """
    from trainer.model.device import pick_device
    from trainer.model.sharing import sharing_of

    training, longest = found.config.training, max(len(example.input_ids) for row in rows for example in row)
    given = found.config.memory.token_budget
    budget = max(longest, MAX_BUDGET[pick_device().type]) if given == "auto" else given
    seed = training.seed if isinstance(training.seed, int) else DEFAULT_SEED
    batch_size = find_batch_size(found.config, len(rows))
    steps = list(StepOrder(["rows"] * len(rows), {"rows": 1.0}, batch_size, seed))
    counted = steps[:: max(1, -(-len(steps) // COUNTED_STEPS))]
    sharing, _ = sharing_of(found.base.skeleton)
    sums = [_count([example for row in step for example in rows[row]], budget, sharing) for step in counted]
    unshared, padded, computed = (sum(column) for column in zip(*sums, strict=True))
    return StepTokens(batch_size, budget, len(steps), len(counted), padded, unshared, computed)


def _count(examples: Sequence[Example], budget: int, sharing: Sharing) -> tuple[int, int, int]:
    """The tokens of one step: unshared, padded to its longest row, and as its packs compute them."""
    lengths = [len(example.input_ids) for example in examples]
    packs = make_packs(examples, budget, sharing)
    return sum(lengths), max(lengths) * len(lengths), sum(map(_computed, packs))


def _computed(pack: Pack) -> int:
    """Tokens that go through the model; those of an unshared pack with its padding."""
    if pack.shared:
        return len(pack.input_ids)
    depth: torch.Tensor = pack.position_ids
    return int((depth == 0).sum()) * (int(depth.max()) + 1)
