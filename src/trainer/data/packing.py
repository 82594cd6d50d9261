"""The examples of one optimizer step, cut into packs: what goes through the model at a time.

A pack is a padded batch under a token budget. How a step is cut changes speed and memory and not the result: each
pack returns sums, and the step divides them by its own number of supervised tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.data.rendering import IGNORE_INDEX, Example

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Pack:
    """One forward and backward. All tensors are int64 [B, T]; rows shorter than T are padded on the right."""

    input_ids: "torch.Tensor"
    attention_mask: "torch.Tensor"  # 1 on tokens, 0 on padding
    labels: "torch.Tensor"  # -100 where not supervised


def make_packs(examples: Sequence[Example], token_budget: int) -> list[Pack]:
    """Group examples of similar length so that each pack has at most `token_budget` tokens, padding included.

    An example longer than the budget is a pack of its own.
    """
    packs: list[list[Example]] = []
    for example in sorted(examples, key=lambda example: len(example.input_ids), reverse=True):
        longest = len(packs[-1][0].input_ids) if packs else 0
        if packs and longest * (len(packs[-1]) + 1) <= token_budget:
            packs[-1].append(example)
        else:
            packs.append([example])
    return [_pad(rows) for rows in packs]


def _pad(rows: Sequence[Example]) -> Pack:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    def stack(values: Sequence[Sequence[int]], padding: int) -> torch.Tensor:
        return pad_sequence([torch.tensor(value) for value in values], batch_first=True, padding_value=padding)

    return Pack(
        input_ids=stack([row.input_ids for row in rows], 0),
        attention_mask=stack([[1] * len(row.input_ids) for row in rows], 0),
        labels=stack([row.labels for row in rows], IGNORE_INDEX),
    )
