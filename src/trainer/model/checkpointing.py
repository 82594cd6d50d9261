"""Activation checkpointing: layers that keep no activations for the backward pass but recompute them in it.

The first layers are the ones to choose: when the backward pass reaches them, all that later ones kept is freed.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def recomputable(model: "PreTrainedModel") -> list[Any]:
    """The model's layers in order, empty where transformers cannot recompute them."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    if not model.supports_gradient_checkpointing:
        return []
    found = {name: module for name, module in model.named_modules() if isinstance(module, GradientCheckpointingLayer)}
    return [module for name, module in found.items() if not any(name.startswith(f"{outer}.") for outer in found)]


def recompute(model: "PreTrainedModel", num_layers: int) -> None:
    """Keep no activations of the first `num_layers` layers while the model trains, and those of all others."""
    from torch.utils.checkpoint import checkpoint

    for number, layer in enumerate(recomputable(model)):
        layer.gradient_checkpointing = number < num_layers
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
