"""The merged model: the base with the adapter's change added to its weights, so that it needs no adapter any more."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.schema import ModelConfig
from trainer.model.adapter import load_adapter
from trainer.model.base import Base
from trainer.model.loading import load_model
from trainer.model.quantization import adopted

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

SEED = 0  # of the rounding: the same run is merged into the same bytes


def merged_model(base: Base, settings: ModelConfig, adapter: Path, dtype: "torch.dtype") -> "PreTrainedModel":
    """The merged model in `dtype`, on the CPU, where large models fit.

    A quantized base is dequantized first: those are the weights that the adapter was trained on. The unquantized
    base has others, and the adapter has learned to make up for the difference.

    Raises: ConfigError, when base or adapter cannot be loaded.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers import PreTrainedModel

    model = load_model(base, settings, torch.device("cpu"), dtype)
    if adopted(settings, base.config).quantization != "none":
        model = model.dequantize(dtype=dtype)
    adapted = load_adapter(model, adapter)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for layer in adapted.modules():
            if isinstance(layer, BaseTunerLayer):
                _merge(layer, generator)
    merged = adapted.unload()
    assert isinstance(merged, PreTrainedModel)
    return merged.eval()


def _merge(layer: Any, generator: "torch.Generator") -> None:
    """Add the change in float32, and round the sum once, to the format that the weights had."""
    weights = list(layer.get_base_layer().parameters(recurse=False))
    formats = [weight.dtype for weight in weights]
    for weight in weights:
        weight.data = weight.data.float()
    # Not safe_merge: that rounds the change before adding it. What is not finite is found by the comparison.
    layer.merge()
    for weight, dtype in zip(weights, formats, strict=True):
        weight.data = rounded(weight.data, dtype, generator)


def rounded(exact: "Tensor", dtype: "torch.dtype", generator: "torch.Generator") -> "Tensor":
    """Each float32 number to one of its two neighbors in `dtype`, the nearer one more likely: on average, unchanged.

    The base's weights are numbers of `dtype` already, and fine-tuning changes most of them by less than half the way
    to the next one. Rounding to the nearest would undo those changes, all in the same direction.
    """
    import torch

    nearest = exact.to(dtype)
    error = exact - nearest.float()
    towards = torch.where(error > 0, torch.inf, -torch.inf).to(dtype)
    other = torch.nextafter(nearest, towards)
    chance = error / (other.float() - nearest.float())
    return torch.where(torch.rand(exact.shape, generator=generator) < chance, other, nearest)
