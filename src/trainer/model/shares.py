"""Shares of the weights: what the adapter changes, and what quantization reaches."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trainer.config.schema import LoraSettings
from trainer.model.experts import is_within, routers, shape_of, stacks
from trainer.model.targets import find_targets, linear_modules
from trainer.runs.manifest import WeightShare

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = ("attention", "attn")  # in the name of a module's class
EMBEDDINGS, ROUTER, EXPERTS, OTHER = "embeddings", "router", "experts", "norms and biases"


def weight_shares(model: "PreTrainedModel", settings: LoraSettings, quantized: Collection[str]) -> list[WeightShare]:
    """The kinds of weights of a model, the largest first; `quantized` are names of parameters."""
    adapted = {
        target.name if not target.is_layer else f"{target.name}.weight" for target in find_targets(model, settings)
    }
    kinds = kinds_of(model)
    shares: dict[str, WeightShare] = {}
    for name, weight in model.named_parameters():
        kind, size = kinds[name], weight.numel()
        share = shares.get(kind, WeightShare(kind, 0, 0, 0))
        shares[kind] = replace(
            share,
            weights=share.weights + size,
            adapted=share.adapted + size * (name in adapted),
            quantized=share.quantized + size * (name in quantized),
        )
    return sorted(shares.values(), key=lambda share: -share.weights)


def kinds_of(model: "PreTrainedModel") -> dict[str, str]:
    """The kind of each parameter, by the modules that hold it."""
    choosing, embedded = routers(model), {id(weight) for weight in _embeddings(model)}
    experts = {stack.name for stack in stacks(model)}
    layers = {f"{name}.weight" for name, _ in linear_modules(model)}
    attention = {name for name, module in model.named_modules() if _is_attention(module)}

    def kind(name: str, is_embedding: bool, num_dimensions: int) -> str:
        if is_embedding:
            return EMBEDDINGS
        if is_within(name, choosing):
            return ROUTER
        if name in experts:
            return EXPERTS
        if name not in layers and num_dimensions < 2:
            return OTHER
        if is_within(name, attention):
            return "attention"
        return "shared experts" if "shared_expert" in name else "dense layers"

    return {
        name: kind(name, id(weight) in embedded, len(shape_of(weight))) for name, weight in model.named_parameters()
    }


def _embeddings(model: "PreTrainedModel") -> Iterator[object]:
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        if module is not None:
            yield from module.parameters()


def _is_attention(module: object) -> bool:
    return any(word in type(module).__name__.lower() for word in ATTENTION)


def adapter_in_words(shares: Sequence[WeightShare]) -> str:
    """Such as: on 84% of the weights (experts, attention)."""
    adapted = [share for share in shares if share.adapted]
    kinds = ", ".join(share.kind if share.adapted == share.weights else f"part of {share.kind}" for share in adapted)
    return f"on {percent(sum(share.adapted for share in adapted), _total(shares))} of the weights ({kinds})"


def quantization_in_words(shares: Sequence[WeightShare], scheme: str, number_format: str) -> str:
    """Such as: nf4: 93% of the weights; 7% stay bfloat16 (embeddings, router)."""
    left = [share for share in shares if share.quantized < share.weights]
    unquantized = sum(share.weights - share.quantized for share in left)
    kinds = ", ".join(share.kind for share in left)
    reached = percent(_total(shares) - unquantized, _total(shares))
    return f"{scheme}: {reached} of the weights; {percent(unquantized, _total(shares))} stay {number_format} ({kinds})"


def percent(part: int, whole: int) -> str:
    """A share that is told from none and from all."""
    if 0 < part < 0.005 * whole:
        return "under 1%"
    return "over 99%" if 0.995 * whole < part < whole else f"{part / whole:.0%}"


def _total(shares: Iterable[WeightShare]) -> int:
    return sum(share.weights for share in shares)
