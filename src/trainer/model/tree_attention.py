"""Attention over a pack: each token sees its own conversation and nothing else.

A key k is visible to a query q if k <= q < subtree_end[k]. On a CPU the rule is carried out segment by segment, on a
GPU by FlexAttention with the rule as its block mask, and elsewhere by a dense mask, which is also the plain reference.
transformers' models reach it under the name `prefix_tree`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from trainer.data.pack.packing import Pack
from trainer.model import flex
from trainer.model.device import BF16_CAPABILITY, send
from trainer.model.segments import segment_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "prefix_tree"
BLOCK = 128  # queries at a time on a CPU: the scores of more leave its caches

Kind = Literal["segments", "flex", "dense", "eager"]


@dataclass(frozen=True, slots=True)
class Block:
    """Queries [begin, end), the last of which sees all keys in `ranges`; the ranges end with the queries themselves."""

    begin: int
    end: int
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """A pack's structure in the form that one kind of attention wants; one of the three is set."""

    blocks: tuple[Block, ...] = ()
    layout: flex.Layout = ()
    mask: Tensor | None = None  # [1, 1, U, U], what is added to the scores


def kind_for(model: "PreTrainedModel", device: torch.device, has_flex: bool | None = None) -> Kind:
    """The fastest kind that the model and the device allow. `has_flex`: of a GPU that is not in this machine."""
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "attn_logit_softcapping", None) or model.config._attn_implementation == "eager":
        return "eager"  # only the model's own code caps its scores, or has sinks
    if getattr(config, "attention_dropout", None):
        return "dense"
    if device.type == "cpu":
        return "segments"
    if has_flex is None:
        has_flex = device.type == "cuda" and torch.cuda.get_device_capability(device) >= BF16_CAPABILITY
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return "flex" if has_flex and head_dim >= flex.MIN_HEAD_DIM else "dense"


def implementation(kind: Kind) -> str:
    """The name under which transformers finds this kind."""
    return "eager" if kind == "eager" else NAME


def make_tree(pack: Pack, kind: Kind, device: torch.device, dtype: torch.dtype) -> Tree:
    """The structure of `pack`, whose tensors are still in the computer's own memory."""
    if kind == "segments":
        return Tree(blocks=tuple(find_blocks(pack)))
    if kind == "flex" and len(pack.subtree_end) > flex.BLOCK:
        return Tree(layout=flex.find_layout(pack.subtree_end, device))
    return Tree(mask=_added_mask(dense_mask(send(pack.subtree_end, device)), dtype))


def dense_mask(subtree_end: Tensor) -> Tensor:
    """The rule as a bool tensor [1, 1, U, U], true where the query (row) sees the key (column)."""
    number = torch.arange(len(subtree_end), device=subtree_end.device)
    query, key = number[:, None], number[None, :]
    return ((key <= query) & (query < subtree_end[None, :]))[None, None]


def _added_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A bool mask as what is added to the scores, in a form that SDPA's kernel takes as it is.

    Of a bool mask, and of rows that do not begin at multiples of eight, each layer would keep a copy of its own.
    """
    size = visible.shape[-1]
    mask = torch.zeros(1, 1, size, size + -size % 8, dtype=dtype, device=visible.device)[..., :size]
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)


def find_blocks(pack: Pack) -> Sequence[Block]:
    """Queries of one segment at a time, a segment being a run of tokens without a branch, and what they see."""
    positions, ends = pack.position_ids.tolist(), pack.subtree_end.tolist()
    starts = [k for k in range(len(ends)) if k == 0 or positions[k] != positions[k - 1] + 1 or ends[k] != ends[k - 1]]
    blocks: list[Block] = []
    path: list[tuple[int, int]] = []  # the segments above and with the current one
    for start, stop in zip(starts, [*starts[1:], len(ends)], strict=True):
        while path and ends[path[-1][0]] <= start:
            path.pop()
        for begin in range(start, stop, BLOCK):
            end = min(begin + BLOCK, stop)
            blocks.append(Block(begin, end, _joined([*path, (start, end)])))
        path.append((start, stop))
    return blocks


def _joined(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Ranges that touch become one."""
    joined = [ranges[0]]
    for begin, end in ranges[1:]:
        if joined[-1][1] == begin:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return tuple(joined)


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    tree: Tree | None = None,
    **settings: Any,
) -> tuple[Tensor, Tensor | None]:
    """Transformers' signature: query [B, heads, U, d] to [B, U, heads, d]. Without a tree it is plain SDPA."""
    if tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)  # type: ignore[no-any-return]
    if tree.mask is not None:
        return sdpa_attention_forward(module, query, key, value, tree.mask, **settings)  # type: ignore[no-any-return]
    scaling = settings.get("scaling") or query.shape[-1] ** -0.5
    if tree.layout:
        return flex.attend(query, key, value, tree.layout, scaling).transpose(1, 2), None
    output = segment_attention(query[0], key[0], value[0], tree.blocks, scaling)
    return output.transpose(0, 1).unsqueeze(0), None


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
