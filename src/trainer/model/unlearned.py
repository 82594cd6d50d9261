"""Tokens that a base has never learned: their rows in the embedding or the head are zeros, no numbers, or copies."""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SAMPLED = 1_000  # rows that say how long a learned one is
FAINT = 1e-3  # of their median length


def unlearned(model: "PreTrainedModel", used: Collection[int], others: Collection[int]) -> dict[int, str]:
    """Of the tokens `used` those that were not learned, with the reason; `others` are tokens that may be copies."""
    found: dict[int, str] = {}
    for name, layer in (("embedding", model.get_input_embeddings()), ("output head", model.get_output_embeddings())):
        weight = getattr(layer, "weight", None)
        if weight is not None and weight.ndim == 2 and weight.is_floating_point() and not weight.is_meta:
            for token, reason in _rows(weight.detach(), sorted(used), sorted(others)):
                found.setdefault(token, f"its row in the {name} {reason}")
    return found


def _rows(weight: "torch.Tensor", used: list[int], others: list[int]) -> Iterator[tuple[int, str]]:
    """`weight` is [V, H]."""
    step = max(1, len(weight) // SAMPLED)
    usual = weight[::step].float().norm(dim=-1).nanmedian()
    known = [token for token in others if token < len(weight)]
    compared = weight[known]
    for token in used:
        if token >= len(weight):
            continue
        row = weight[token]
        if not row.isfinite().all():
            yield token, "holds values that are no numbers"
        elif row.float().norm() <= FAINT * usual:
            yield token, "is zero, or nearly"
        elif any(known[number] != token for number in (compared == row).all(dim=-1).nonzero()[:, 0].tolist()):
            yield token, "is a copy of another token's"
