"""Next-token loss over the supervised tokens of a pack, as sums: the step divides once, by its own count."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from trainer.data.packing import Pack
from trainer.data.rendering import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Sums:
    """Added over tokens; scalars on the device, so that nothing waits for them."""

    nll: "Tensor"  # float32, negative log-likelihood in nats
    num_correct: "Tensor"  # int64, tokens whose most likely prediction was the target


def supervised_sums(model: "nn.Module", pack: Pack) -> Sums:
    """Forward one pack; the loss of token t is scored at position t-1, so a row's first token is never scored.

    Only positions that are scored in some row reach the output head.
    """
    targets = pack.labels[:, 1:]
    scored = (targets != IGNORE_INDEX).any(dim=0).nonzero().squeeze(1)  # [K] of T-1 positions
    output = model(input_ids=pack.input_ids, attention_mask=pack.attention_mask, logits_to_keep=scored, use_cache=False)
    kept = targets[:, scored]  # [B, K]
    mask = kept != IGNORE_INDEX
    logits, target = output.logits[mask].float(), kept[mask]  # [S, V], [S]
    nll = functional.cross_entropy(logits, target, reduction="sum")
    return Sums(nll, (logits.detach().argmax(dim=-1) == target).sum())


def to_device(pack: Pack, device: "torch.device") -> Pack:
    """The pack with its tensors on `device`."""
    return Pack(
        *(tensor.to(device, non_blocking=True) for tensor in (pack.input_ids, pack.attention_mask, pack.labels))
    )
