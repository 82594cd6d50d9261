"""Attention on a CPU, block of queries by block of queries, each against the keys of its own conversation.

torch's own kernel for CPUs spends most of a step in its backward pass, and has no mask that a branch could use without
computing what it hides. Here every product is a batched matrix product over what is visible, the heads that share a
key sharing its product too.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from trainer.model.tree_attention import Block

KEPT_KEYS = 1024  # blocks that see more compute their probabilities again in the backward pass, to save memory


def segment_attention(query: Tensor, key: Tensor, value: Tensor, blocks: "Sequence[Block]", scaling: float) -> Tensor:
    """Query [heads, U, d], key and value [key heads, U, d] to [heads, U, d]; `blocks` cover all queries once."""
    output: Tensor = _SegmentAttention.apply(query, key, value, blocks, scaling)  # type: ignore[no-untyped-call]
    return output


class _SegmentAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: "Sequence[Block]", scaling: float
    ) -> Tensor:
        group = query.shape[0] // key.shape[0]
        rows = _grouped(query, group)
        output = rows.new_empty(*rows.shape[:2], value.shape[-1])
        scores = _Scores(rows, key, blocks, scaling)
        kept = []
        for block in blocks:
            probabilities = scores.probabilities(block)
            _own(output, block, group).copy_(torch.bmm(probabilities, _seen(value, block)))
            kept.append(probabilities if any(ctx.needs_input_grad) and _is_kept(probabilities) else None)
        ctx.save_for_backward(rows, key, value, output, *kept)
        ctx.blocks, ctx.group, ctx.scaling = blocks, group, scaling
        return _ungrouped(output, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        rows, key, value, output, *all_kept = ctx.saved_tensors
        gradient = _grouped(gradients[0], ctx.group)
        scores = _Scores(rows, key, ctx.blocks, ctx.scaling)
        drift = (_wide(gradient) * output).sum(-1, keepdim=True).to(value.dtype)  # [key heads, U * group, 1]
        query_gradient = torch.empty_like(rows)
        key_gradient, value_gradient = torch.zeros_like(_wide(key)), torch.zeros_like(_wide(value))
        for block, kept in zip(ctx.blocks, all_kept, strict=True):
            probabilities = kept if kept is not None else scores.probabilities(block)
            received = _own(gradient, block, ctx.group)
            _add(value_gradient, block, torch.bmm(probabilities.transpose(1, 2), received))
            pulled = torch.bmm(received, _seen(value, block).transpose(1, 2))
            pulled.sub_(_own(drift, block, ctx.group)).mul_(probabilities)
            _own(query_gradient, block, ctx.group).copy_(torch.bmm(pulled, _seen(key, block)))
            _add(key_gradient, block, torch.bmm(pulled.transpose(1, 2), _own(rows, block, ctx.group)))
        return (
            _ungrouped(query_gradient.mul_(ctx.scaling), ctx.group),
            key_gradient.mul_(ctx.scaling).to(key.dtype),
            value_gradient.to(value.dtype),
            None,
            None,
        )


class _Scores:
    """Scores of one block after the other, at least in float32: 16 bits are wrong by percents after the exponential.

    They are written over each other: memory that is new for each block would cost more time than a pass over it.
    """

    def __init__(self, rows: Tensor, key: Tensor, blocks: "Sequence[Block]", scaling: float) -> None:
        self.rows, self.key, self.dtype, self.scaling = _wide(rows), _wide(key), key.dtype, scaling
        self.group = rows.shape[1] // key.shape[1]
        longest = max(block.end - block.begin for block in blocks)
        self.hidden = self.rows.new_full((longest, longest), -torch.inf).triu_(1)[:, None]  # later queries
        self.space = self.rows.new_empty(0)

    def probabilities(self, block: "Block") -> Tensor:
        """Their softmax [key heads, queries * group, keys]; the last keys are the queries themselves, in order."""
        queries = block.end - block.begin
        rows, seen = _own(self.rows, block, self.group), _seen(self.key, block)
        scores = self._room(rows.shape[0], rows.shape[1], seen.shape[1])
        with _products_of(self.dtype):
            torch.baddbmm(scores, rows, seen.transpose(1, 2), beta=0, alpha=self.scaling, out=scores)
        own = scores.view(scores.shape[0], queries, self.group, -1)[..., -queries:]
        own.add_(self.hidden[:queries, :, :queries])
        return torch.softmax(scores, dim=-1, out=scores).to(self.dtype, copy=True)

    def _room(self, *shape: int) -> Tensor:
        size = shape[0] * shape[1] * shape[2]
        if self.space.numel() < size:
            self.space = self.space.new_empty(size)
        return self.space[:size].view(shape)


@contextmanager
def _products_of(dtype: torch.dtype) -> Iterator[None]:
    """Float32 products of what was bfloat16: multiplied as that, which loses nothing, and added up in float32."""
    setting: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # made when torch is imported
    before = setting.fp32_precision
    if dtype == torch.bfloat16:
        setting.fp32_precision = "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before


def _grouped(tensor: Tensor, group: int) -> Tensor:
    """Heads that share a key beside each other [heads, U, d] -> [key heads, U * group, d]: a block is one piece."""
    heads, num_tokens, width = tensor.shape
    return tensor.view(-1, group, num_tokens, width).transpose(1, 2).reshape(heads // group, -1, width)


def _ungrouped(rows: Tensor, group: int) -> Tensor:
    """The reverse of `_grouped`."""
    return rows.view(rows.shape[0], -1, group, rows.shape[-1]).transpose(1, 2).flatten(0, 1)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _is_kept(probabilities: Tensor) -> bool:
    return probabilities.shape[-1] <= KEPT_KEYS


def _own(rows: Tensor, block: "Block", group: int) -> Tensor:
    """The slice of the block's queries [key heads, queries * group, ...]; a view."""
    return rows[:, block.begin * group : block.end * group]


def _seen(tensor: Tensor, block: "Block") -> Tensor:
    """The keys or values that the block sees [key heads, keys, d]."""
    parts = [tensor[:, begin:end] for begin, end in block.ranges]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _add(total: Tensor, block: "Block", part: Tensor) -> None:
    """The reverse of `_seen`: each key gets its part."""
    done = 0
    for begin, end in block.ranges:
        total[:, begin:end] += part[:, done : done + end - begin]
        done += end - begin
