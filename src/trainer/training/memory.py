"""How much memory a run needs, and from it how many tokens go through the model at a time."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.config.schema import RunConfig
from trainer.model.adapter import linear_modules
from trainer.model.base import Base

if TYPE_CHECKING:
    import torch

BYTES_PER_WEIGHT = {"nf4": 0.56, "int8": 1.03}  # with their scales: 4 + 0.5 bits, and one row scale
ADAPTER_BYTES = 16  # float32 weight, gradient and AdamW's two moments
USABLE = 0.85  # of the free memory; the rest is fragmentation and the libraries' own
HEAD_BYTES = 2**28  # a chunk of logits as the head computes it, and what is made from it
CPU_USABLE = 0.5  # a CPU shares its memory with everything else
MAX_BUDGET = {"cpu": 4096, "cuda": 32_768}  # beyond this more tokens at a time bring no speed


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes, estimated from the model's shape. Not measured."""

    free_bytes: int
    weights_bytes: int
    adapter_bytes: int
    bytes_per_token: int
    token_budget: int

    @property
    def peak_bytes(self) -> int:
        return self.weights_bytes + self.adapter_bytes + HEAD_BYTES + self.token_budget * self.bytes_per_token

    def problem(self, longest: int) -> str | None:
        """Why the run does not fit, or None."""
        if self.weights_bytes + self.adapter_bytes > self.free_bytes:
            return (
                f"model.base: the weights need about {gib(self.weights_bytes)}, and {gib(self.free_bytes)} are free; "
                "set model.quantization to nf4 or choose a smaller base"
            )
        needed = self.weights_bytes + self.adapter_bytes + HEAD_BYTES + longest * self.bytes_per_token
        if needed > self.free_bytes:
            return (
                f"data.max_length: the longest row ({longest:,} tokens) needs about {gib(needed)}, and "
                f"{gib(self.free_bytes)} are free; lower max_length, or set model.quantization to nf4"
            )
        return None


def estimate(
    config: RunConfig, base: Base, dtype: "torch.dtype", device: "torch.device", free_bytes: int, longest: int
) -> MemoryEstimate:
    """Estimate for this base on a device with `free_bytes` to give.

    `auto` takes the largest budget that fits, at least the longest row, at most what still brings speed.
    """
    weights, linear = _count_parameters(base)
    per_weight = BYTES_PER_WEIGHT.get(config.model.quantization, dtype.itemsize)
    weights_bytes = int(linear * per_weight + (weights - linear) * dtype.itemsize)
    adapter_bytes = _adapter_parameters(base, config.lora.r) * ADAPTER_BYTES
    bytes_per_token = activation_bytes(base, config, dtype, longest)
    share = CPU_USABLE if device.type == "cpu" else USABLE
    room = int(free_bytes * share) - weights_bytes - adapter_bytes - HEAD_BYTES
    largest = max(longest, min(MAX_BUDGET[device.type], room // bytes_per_token))
    budget = largest if config.memory.token_budget == "auto" else config.memory.token_budget
    return MemoryEstimate(free_bytes, weights_bytes, adapter_bytes, bytes_per_token, budget)


def gib(num_bytes: float) -> str:
    """Bytes for people."""
    return f"{num_bytes / 2**30:,.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:,.0f} MiB"


def _count_parameters(base: Base) -> tuple[int, int]:
    """All parameters, and those of linear layers, which are the ones that are quantised."""
    linear = sum(weight.numel() for _, weight in linear_modules(base.skeleton))
    return sum(parameter.numel() for parameter in base.skeleton.parameters()), linear


def _adapter_parameters(base: Base, rank: int) -> int:
    """Weights of an adapter on every linear layer."""
    return sum(rank * sum(weight.shape) for _, weight in linear_modules(base.skeleton))


def activation_bytes(base: Base, config: RunConfig, dtype: "torch.dtype", longest: int) -> int:
    """Saved for the backward pass, per token; the test holds it against what is saved.

    Counted for a Llama block. In the compute type: the inputs of its linear layers, query, key, value and what
    attention makes of them, four MLP-sized tensors and the adapters' images. In float32: the inputs of two norms. On a
    CPU also the probabilities of attention, as far as they are kept.
    """
    from trainer.model.segments import KEPT_KEYS

    shape = base.config.get_text_config()
    hidden, heads = shape.hidden_size, shape.num_attention_heads
    width = heads * (getattr(shape, "head_dim", None) or hidden // heads)
    key_width = width * (getattr(shape, "num_key_value_heads", None) or heads) // heads
    mlp = getattr(shape, "intermediate_size", None) or 4 * hidden
    kept_keys = min(longest, KEPT_KEYS) // 2
    block = dtype.itemsize * (2 * hidden + 3 * width + 2 * key_width + 4 * mlp + 7 * config.lora.r + heads * kept_keys)
    block += 4 * 2 * hidden
    is_peft = config.model.quantization != "none" or config.lora.use_dora or config.lora.lora_dropout
    copies = bool(is_peft) + bool(config.lora.lora_dropout)  # PEFT's own layer casts its input; dropout keeps its mask
    block += copies * 4 * (5 * hidden + width + mlp)
    return int(shape.num_hidden_layers * block)
