"""Attention on a CPU, block of queries by block of queries, each against the keys of its own conversation.

torch's own kernel for CPUs spends most of a step in its backward pass, and has no mask that a branch could use without
computing what it hides. Here every product is a batched matrix product over what is visible, the heads that share a
key sharing its product too.
"""

from collections.abc import Sequence
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
        grouped = query.reshape(key.shape[0], -1, *query.shape[1:])  # [key heads, group, U, d]
        output = query.new_empty(*grouped.shape[:3], value.shape[-1])
        wide_query, wide_key = _wide(grouped) * scaling, _wide(key)
        kept = []
        for block in blocks:
            probabilities = _probabilities(wide_query, wide_key, block).to(value.dtype)
            product = torch.bmm(probabilities, _seen(value, block))
            output[:, :, block.begin : block.end] = product.view(*grouped.shape[:2], -1, value.shape[-1])
            kept.append(probabilities if any(ctx.needs_input_grad) and _is_kept(probabilities) else None)
        ctx.save_for_backward(query, key, value, output, *kept)
        ctx.blocks, ctx.scaling = blocks, scaling
        return output.view(*query.shape[:2], value.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, output, *all_kept = ctx.saved_tensors
        gradient = gradients[0].reshape(output.shape)
        grouped = query.reshape(key.shape[0], -1, *query.shape[1:])
        wide_query, wide_key = _wide(grouped) * ctx.scaling, _wide(key)
        drift = (_wide(gradient) * output).sum(-1, keepdim=True).to(value.dtype)  # [key heads, group, U, 1]
        query_gradient = torch.empty_like(grouped)
        key_gradient, value_gradient = torch.zeros_like(wide_key), torch.zeros_like(_wide(value))
        for block, kept in zip(ctx.blocks, all_kept, strict=True):
            probabilities = kept if kept is not None else _probabilities(wide_query, wide_key, block).to(value.dtype)
            received = _rows(gradient, block)
            _add(value_gradient, block, torch.bmm(probabilities.transpose(1, 2), received))
            score_gradient = torch.bmm(received, _seen(value, block).transpose(1, 2))
            score_gradient.sub_(_rows(drift, block)).mul_(probabilities).mul_(ctx.scaling)
            product = torch.bmm(score_gradient, _seen(key, block))
            query_gradient[:, :, block.begin : block.end] = product.view(*grouped.shape[:2], -1, key.shape[-1])
            _add(key_gradient, block, torch.bmm(score_gradient.transpose(1, 2), _rows(grouped, block)))
        return (
            query_gradient.view(query.shape),
            key_gradient.to(key.dtype),
            value_gradient.to(value.dtype),
            None,
            None,
        )


def _wide(tensor: Tensor) -> Tensor:
    """At least float32: scores in 16 bits would be wrong by percents after the exponential."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _is_kept(probabilities: Tensor) -> bool:
    return probabilities.shape[-1] <= KEPT_KEYS


def _probabilities(query: Tensor, key: Tensor, block: "Block") -> Tensor:
    """Softmax of the scores [key heads, group * queries, keys]; the last keys are the queries themselves, in order."""
    queries = block.end - block.begin
    scores = torch.bmm(_rows(query, block), _seen(key, block).transpose(1, 2))
    own = scores.view(scores.shape[0], -1, queries, scores.shape[-1])[..., -queries:]
    hidden = torch.ones(queries, queries, dtype=torch.bool, device=scores.device).triu_(1)
    own.masked_fill_(hidden, -torch.inf)
    return torch.softmax(scores, dim=-1)


def _rows(grouped: Tensor, block: "Block") -> Tensor:
    """The block's queries [key heads, group * queries, d]."""
    return grouped[:, :, block.begin : block.end].reshape(grouped.shape[0], -1, grouped.shape[-1])


def _seen(tensor: Tensor, block: "Block") -> Tensor:
    """What the block sees of keys or values [key heads, keys, d]."""
    parts = [tensor[:, begin:end] for begin, end in block.ranges]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _add(total: Tensor, block: "Block", part: Tensor) -> None:
    """The reverse of `_seen`: each key gets its part."""
    done = 0
    for begin, end in block.ranges:
        total[:, begin:end] += part[:, done : done + end - begin]
        done += end - begin
