"""The adapter: LoRA weights put onto a base, made new or loaded from a run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config.schema import LoraSettings
from trainer.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def add_adapter(model: "PreTrainedModel", settings: LoraSettings) -> "PeftModel":
    """A new adapter on every layer that the settings name; its B matrices are 0, so the model is unchanged at first."""
    from peft import LoraConfig, PeftModel, TaskType, get_peft_model

    adapted = get_peft_model(model, LoraConfig(task_type=TaskType.CAUSAL_LM, **settings.model_dump()))
    assert isinstance(adapted, PeftModel)
    return adapted


def check_targets(model: "PreTrainedModel", settings: LoraSettings) -> None:
    """Raises: ConfigError, for each target that matches no layer. PEFT only fails when none of them does."""
    if settings.target_modules == "all-linear":
        return
    linear = [name for name, _ in linear_modules(model)]
    known = sorted({name.rsplit(".", 1)[-1] for name in linear})
    problems = [
        f"lora.target_modules: {target!r} matches no layer of this model, expected some of: {', '.join(known)}"
        for target in settings.target_modules
        if not any(name == target or name.endswith(f".{target}") for name in linear)
    ]
    if problems:
        raise ConfigError(*problems)


def load_adapter(model: "PreTrainedModel", folder: Path, trainable: bool = False) -> "PeftModel":
    """The base with the adapter of `folder`, whose weights must be safetensors.

    Raises: ConfigError, when the folder is not an adapter of this base.
    """
    from peft import PeftModel

    if not (folder / "adapter_model.safetensors").is_file():
        raise ConfigError(f"adapter {str(folder)!r}: has no adapter_model.safetensors, expected a PEFT adapter")
    try:
        return PeftModel.from_pretrained(model, folder, is_trainable=trainable, use_safetensors=True)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"adapter {str(folder)!r}: does not fit the base: {error}") from error


def unchanged(file: Path, start: Path | None) -> bool:
    """Whether the adapter in `file` equals the one in `start`, or, where it began anew, still has a B of zeros only."""
    from safetensors.torch import load_file

    tensors = load_file(file)
    if start is None:
        return not any(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)
    before = load_file(start) if start.is_file() else {}
    return tensors.keys() == before.keys() and all(tensors[name].equal(before[name]) for name in tensors)


def trainable(model: "torch.nn.Module") -> dict[str, "torch.nn.Parameter"]:
    """The weights that are trained, by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def keep_float32(model: "torch.nn.Module") -> None:
    """Hold the adapter in float32: updates of a small learning rate vanish in 16 bits."""
    for parameter in trainable(model).values():
        parameter.data = parameter.data.float()


def adapter_tensors(model: "PeftModel") -> dict[str, "torch.Tensor"]:
    """The adapter's weights under the names of PEFT's own format; not copied."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model))


def adapter_config(model: "PeftModel") -> bytes:
    """The adapter's configuration in PEFT's own format."""
    config = model.active_peft_config.to_dict() | {"inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    return json.dumps(plain, indent=2).encode()


def linear_modules(model: "PreTrainedModel") -> Iterator[tuple[str, "torch.Tensor"]]:
    """Name and weight of each layer that can take an adapter: the linear ones except the output head."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head:
            yield name, module.weight
