"""Rows that may share tokens in a model, read off its configuration: only what is surely exact is shared."""

from typing import TYPE_CHECKING

from trainer.data.pack.packing import Sharing

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

UNSHARED = Sharing(longest=0)
WINDOWED = "sliding_attention"
KNOWN_LAYERS = {"full_attention", WINDOWED}
LENGTH_CHOOSES = "longrope"  # one of two sets of frequencies
LENGTH_DECIDES = "dynamic"  # the frequencies themselves


def sharing_of(model: "PreTrainedModel") -> tuple[Sharing, str | None]:
    """The sharing that the model allows, and why it is less than everything, for people."""
    config = model.config.get_text_config(decoder=True)
    layers = set(getattr(config, "layer_types", None) or [])
    if not model._supports_attention_backend:
        return UNSHARED, "the model computes attention in its own way, which takes no mask of what a token may see"
    if not (model._supports_sdpa or getattr(config, "attn_logit_softcapping", None)):
        return UNSHARED, "the model's attention is more than a softmax over what a token sees"
    if unknown := sorted(layers - KNOWN_LAYERS):
        return UNSHARED, f"the model has layers of the kind {', '.join(unknown)}, which see what stands before a row"
    if getattr(config, "is_encoder_decoder", False):
        return UNSHARED, "the model has an encoder"
    window = _window(config, layers)
    boundary, alone_over = _rope_limit(config, LENGTH_CHOOSES), _rope_limit(config, LENGTH_DECIDES)
    note = f"rows longer than {window:,} tokens, the window of some layers, share no tokens" if window else None
    return Sharing(longest=window, boundary=boundary, alone_over=alone_over), note


def _window(config: "PreTrainedConfig", layers: set[str]) -> int | None:
    """Tokens that a windowed layer sees; None where every layer sees everything."""
    window = getattr(config, "sliding_window", None)
    return window if window and (WINDOWED in layers or not layers) else None


def _rope_limit(config: "PreTrainedConfig", kind: str) -> int | None:
    """The row length beyond which frequencies of this kind change."""
    parameters = getattr(config, "rope_parameters", None) or {}
    per_layer = [value for value in parameters.values() if isinstance(value, dict)] or [parameters]
    limits = [
        rope.get("original_max_position_embeddings") or config.max_position_embeddings
        for rope in per_layer
        if rope.get("rope_type") == kind
    ]
    return min(limits) if limits else None
