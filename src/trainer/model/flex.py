"""Attention on a GPU: FlexAttention, compiled once for packs of all lengths.

torch's `create_block_mask` computes the rule of sight for every pair of tokens on the device, once for each pack. Here
the lists of blocks come from the smallest and the largest subtree end of each block of keys, before anything is sent.
transformers' own call compiles for the first lengths it sees, and from the ninth on computes all scores at once: it
would run out of memory without a word of why.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from trainer.model.device import send

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 128  # tokens; torch's own choice
MIN_HEAD_DIM = 16  # of its kernels

# As BlockMask names them: a count [1, 1, N] and what it counts [1, 1, N, N].
LISTS = [f"{full}{side}_{what}" for side in ("kv", "q") for full in ("", "full_") for what in ("num_blocks", "indices")]
Layout = tuple[Tensor, ...]  # subtree_end [U], then the lists; all int32
Bools = NDArray[np.bool_]


def find_layout(subtree_end: Tensor, device: torch.device) -> Layout:
    """A pack's structure on the device, for packs of more than one block: lengths of 0 and 1 are never dynamic."""
    tensors = [send(tensor, device) for tensor in (subtree_end.int(), *_lists(subtree_end.numpy()))]
    for tensor in tensors:
        torch._dynamo.mark_dynamic(tensor, [number for number, length in enumerate(tensor.shape) if length > 1])
    return tuple(tensors)


def _lists(subtree_end: NDArray[np.int64]) -> list[Tensor]:
    """For each block of queries the blocks of keys seen in part and those seen whole; then both the other way round."""
    begin = np.arange(0, len(subtree_end), BLOCK)
    first, last = np.minimum.reduceat(subtree_end, begin), np.maximum.reduceat(subtree_end, begin)
    before = begin[None, :] < begin[:, None]  # [query blocks, key blocks]
    whole = before & (begin[:, None] + BLOCK <= first[None, :])
    partly = (before & (begin[:, None] < last[None, :]) & ~whole) | np.eye(len(begin), dtype=np.bool_)
    return [tensor for seen in (partly, whole, partly.T, whole.T) for tensor in _ordered(seen)]


def _ordered(seen: Bools) -> tuple[Tensor, Tensor]:
    """The number of keys that each row sees [1, 1, N], and which: their numbers first [1, 1, N, N]."""
    count, indices = seen.sum(axis=1), np.argsort(~seen, axis=1, kind="stable")
    return torch.from_numpy(count.astype(np.int32))[None, None], torch.from_numpy(indices.astype(np.int32))[None, None]


def block_mask(subtree_end: Tensor, *lists: Tensor) -> BlockMask:
    """The layout as torch knows it."""

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < subtree_end[key])

    size = subtree_end.shape[0]
    named: dict[str, Any] = dict(zip(LISTS, lists, strict=True))
    return BlockMask(seq_lengths=(size, size), **named, BLOCK_SIZE=(BLOCK, BLOCK), mask_mod=visible)


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float) -> Tensor:
    """Query [1, heads, U, d], key and value [1, key heads, U, d] to [1, heads, U, d]."""
    for tensor in (query, key, value):
        torch._dynamo.mark_dynamic(tensor, 2)
    output: Tensor = _compiled()(query, key, value, scaling, *layout)
    return output


@cache
def _compiled() -> "Callable[..., Any]":
    """One graph with gradients and one without. `fullgraph`: what is not compiled is an error, never a slow way."""
    return torch.compile(_attend, fullgraph=True)


def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, *layout: Tensor) -> Any:
    # The mask is made in here, so that its lengths are those of tensors, which can vary.
    torch._check(value.shape[2] == key.shape[2])  # type: ignore[no-untyped-call]
    return flex_attention(query, key, value, block_mask=block_mask(*layout), scale=scaling, enable_gqa=True)
