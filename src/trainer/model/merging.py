"""The merged model: the base with the adapter's change added to its weights, so that it needs no adapter any more."""

from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config.schema import ModelConfig
from trainer.model.adapter import load_adapter
from trainer.model.base import Base
from trainer.model.loading import load_model
from trainer.model.quantization import adopted

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def merged_model(base: Base, settings: ModelConfig, adapter: Path, dtype: "torch.dtype") -> "PreTrainedModel":
    """The merged model in `dtype`, on the CPU, where large models fit.

    A quantized base is dequantized first: those are the weights that the adapter was trained on. The unquantized
    base has others, and the adapter has learned to make up for the difference.

    Raises: ConfigError, when base or adapter cannot be loaded.
    """
    import torch
    from transformers import PreTrainedModel

    model = load_model(base, settings, torch.device("cpu"), dtype)
    if adopted(settings, base.config).quantization != "none":
        model = model.dequantize(dtype=dtype)
    # Not safe_merge: that rounds the change before adding it. What is not finite is found by the comparison.
    merged = load_adapter(model, adapter).merge_and_unload()
    assert isinstance(merged, PreTrainedModel)
    return merged.eval()
