"""The bytes that training holds in memory, summed at its peaks from the model's shape."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from trainer.config.schema import ModelConfig, RunConfig
from trainer.model.base import Base
from trainer.model.checkpointing import recomputable
from trainer.model.experts import stacks
from trainer.model.quantization import quantized_weights
from trainer.model.targets import linear_modules, num_trained

if TYPE_CHECKING:
    import torch

BYTES_PER_WEIGHT = {"nf4": 0.56, "int8": 1.03}  # with their scales: 4 + 0.5 bits, and one row scale
# In float32 the adapter's weight, gradient, AdamW's two moments, and the vector in which processes add up gradients;
# a CPU also holds what a checkpoint is written from: the weight and the moments once more.
ADAPTER_BYTES = {"cuda": 20, "cpu": 32}
TOGETHER = 3  # layers of a sharded base that are whole at once: at work, as gathered, and the prefetched next


@dataclass(frozen=True, slots=True)
class Footprint:
    """Estimated, not measured; the tests compare it with what is allocated. All but counts is in bytes."""

    num_layers: int
    num_recomputable: int  # layers that activation checkpointing can recompute
    weights: int
    adapter: int
    kept: int  # of one layer for the backward pass, per token
    kept_per_pair: int  # the same per pair of tokens, where attention keeps its scores
    mask: int  # of all layers per pair of tokens, where what a token sees is a dense mask
    between: int  # the hidden state between two layers, per token: all that a recomputed layer keeps
    around: int  # before the first and after the last layer, per token
    passing: int  # the gradients of the one layer that is in the backward pass, per token
    head_row: int  # logits of one token as the head computes them, and its hidden state
    head_rows: int  # that many at a time
    softmax_row: int  # what is made of the logits of one token
    softmax_rows: int  # that many at a time
    scores: int  # of the one block of queries whose attention is computed
    num_shards: int = 1  # processes that the base's layers are sharded over; `weights` are those of one

    def peak(self, tokens: int, scored: int, recomputed: int = 0) -> int:
        """While `tokens` tokens are trained, `scored` of them, and the first `recomputed` layers are recomputed."""
        layer = tokens * self.kept + tokens * tokens * self.kept_per_pair
        left = tokens * (self.around + recomputed * self.between) + tokens * tokens * self.mask
        before = left + (self.num_layers - recomputed) * layer
        one = max(tokens * self.passing, self.scores)
        again = left + layer + one if recomputed else 0
        return self.fixed + max(before + self._head(scored), before + one, again)

    def evaluating(self, tokens: int) -> int:
        """While `tokens` tokens are only read."""
        held = self.fixed + tokens * self.around + tokens * tokens * self.mask
        return held + max(tokens * self.passing, self.scores, self._head(tokens))

    @property
    def fixed(self) -> int:
        """Bytes held all the time."""
        return self.weights + self.adapter

    def _head(self, tokens: int) -> int:
        return min(tokens, self.head_rows) * self.head_row + min(tokens, self.softmax_rows) * self.softmax_row


def footprint(
    config: RunConfig,
    base: Base,
    dtype: "torch.dtype",
    device: "torch.device",
    longest: int,
    has_flex: bool | None = None,
    num_shards: int = 1,
) -> Footprint:
    """The footprint of this base on this kind of device, for rows of up to `longest` tokens.

    `has_flex`: whether FlexAttention runs on a GPU that is not in this machine; None for one that is.
    `num_shards`: processes that the base's layers are sharded over.
    Counted for a Llama block; others are close, since their linear layers and norms are the same.
    """
    from trainer.model.tree_attention import BLOCK, kind_for
    from trainer.training.loss import LOGIT_BYTES, SOFTMAX_BYTES, rows_within

    kind = kind_for(base.skeleton, device, has_flex)
    shape, size = base.config.get_text_config(), dtype.itemsize
    hidden, heads, mlp = shape.hidden_size, shape.num_attention_heads, _mlp_width(shape)
    _, routed = _routed(base)
    pairs = {"eager": heads * (2 * size + 4)}.get(kind, 0)
    vocabulary = shape.vocab_size
    softmax = (8 if size < 4 else 4) + (8 if getattr(shape, "final_logit_softcapping", None) else 0)  # in float32
    return Footprint(
        num_layers=shape.num_hidden_layers,
        num_recomputable=min(len(recomputable(base.skeleton)), shape.num_hidden_layers),
        weights=weights_bytes(base, config.model.quantization, dtype, device, num_shards),
        adapter=num_trained(base.skeleton, config.lora) * ADAPTER_BYTES[device.type],
        kept=_kept(base, config, size, longest if kind == "segments" else 0),
        kept_per_pair=pairs,
        mask=size if kind in ("dense", "eager") else 0,
        between=hidden * size,
        around=hidden * (3 * size + 4),
        passing=(3 if size < 4 else 2) * max(mlp, routed) * size
        + 8 * hidden,  # in 16 bits one more, beside the adapter's image
        head_row=vocabulary * size + 3 * hidden * size,
        head_rows=rows_within(LOGIT_BYTES[device.type], vocabulary * size),
        softmax_row=vocabulary * softmax,
        softmax_rows=rows_within(SOFTMAX_BYTES[device.type], 4 * vocabulary),
        scores=3 * 4 * heads * BLOCK * longest if kind == "segments" else 0,
        num_shards=num_shards,
    )


def _kept(base: Base, config: RunConfig, size: int, longest: int) -> int:
    """Bytes that a layer keeps of a token.

    In the compute type: the inputs of its linear layers, query, key, value and what attention makes of them, four
    MLP-sized tensors, the adapters' images and the inputs of two norms, which are kept in float32 where they are the
    model's own. Segment attention also keeps its probabilities, where rows are not too long. Dropout keeps what it lets
    through and which it was, DoRA the product before its length is set, and PEFT's own layers their inputs and products
    in float32.
    """
    from trainer.model.rms_norm import has_lean_norms
    from trainer.model.segments import KEPT_KEYS

    shape = base.config.get_text_config()
    hidden, heads, mlp = shape.hidden_size, shape.num_attention_heads, _mlp_width(shape)
    width = heads * (getattr(shape, "head_dim", None) or hidden // heads)
    key_width = width * (getattr(shape, "num_key_value_heads", None) or heads) // heads
    probabilities = heads * (min(longest, KEPT_KEYS) // 2)
    normalized = 2 * hidden * (size if has_lean_norms(base.skeleton) else 4)
    kept = size * (2 * hidden + 3 * width + 2 * key_width + 4 * mlp + 7 * config.lora.r + probabilities) + normalized
    inputs, outputs = 5 * hidden + width + mlp, 2 * hidden + width + 2 * key_width + 2 * mlp
    chosen, routed = _routed(base)  # each expert's input, and its output before and after its weight
    kept += size * max(0, chosen * (3 * hidden + 2 * config.lora.r) + 4 * (routed - mlp))
    dropout, dora = bool(config.lora.lora_dropout), config.lora.use_dora
    if dora and (dropout or config.model.quantization != "none"):
        return int(kept + 4 * (2 * inputs + 3 * outputs))
    return int(kept + dropout * (size + 1) * inputs + dora * size * outputs)


def _mlp_width(shape: Any) -> int:
    return int(getattr(shape, "intermediate_size", None) or 4 * shape.hidden_size)


def _routed(base: Base) -> tuple[int, int]:
    """Experts that compute a token, and the width in the middle of all of them; zeros where there are none."""
    shape = base.config.get_text_config()
    widths = [prod(stack.weight.shape[1:]) // shape.hidden_size for stack in stacks(base.skeleton)]
    chosen = int(getattr(shape, "num_experts_per_tok", None) or 1) if widths else 0
    return chosen, chosen * min(widths, default=0)


def weights_bytes(
    base: Base, quantization: str, dtype: "torch.dtype", device: "torch.device", num_shards: int = 1
) -> int:
    """Weights as they are stored, and the one that a product restores or, in 16 bits, copies at a time.

    A GPU multiplies by all experts of a layer at once, a CPU by one after the other.
    """
    model = base.skeleton
    at_once = [weight.numel() for _, weight in linear_modules(model)]
    for stack in stacks(model):
        at_once.append(stack.weight.numel() // (1 if device.type == "cuda" else len(stack.weight)))
    copied = max(at_once) * dtype.itemsize if dtype.itemsize < 4 else 0
    if num_shards > 1:
        return _shard_bytes(base, dtype, num_shards) + copied
    names = quantized_weights(model, ModelConfig(base=base.name, quantization=quantization))
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    reached = sum(size for name, size in sizes.items() if name in names)
    restored = max(at_once) * dtype.itemsize if names else 0
    stored = reached * BYTES_PER_WEIGHT.get(quantization, 0) + (sum(sizes.values()) - reached) * dtype.itemsize
    return int(stored) + restored + copied


def _shard_bytes(base: Base, dtype: "torch.dtype", num_shards: int) -> int:
    """Of a sharded base: this process's shard of the layers, the layers gathered at once, and the rest unsharded."""
    layers = [sum(weight.numel() for weight in layer.parameters()) for layer in recomputable(base.skeleton)]
    rest = sum(weight.numel() for weight in base.skeleton.parameters()) - sum(layers)
    return int((sum(layers) / num_shards + TOGETHER * max(layers) + rest) * dtype.itemsize)
