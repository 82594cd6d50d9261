"""The adapter: LoRA weights put onto a base, made new or loaded from a run."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.schema import LoraSettings
from trainer.errors import ConfigError, quoted
from trainer.model.experts import is_mixture
from trainer.model.peft_form import as_named, as_trained, on_disk, put_on
from trainer.model.targets import find_targets
from trainer.model.weight_files import TensorInfo, read_header
from trainer.runs import files
from trainer.runs.checkpoint import MANIFEST, Checkpoint, make_manifest

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
FIRST = "default"  # PEFT's own name of an adapter that is alone


def add_adapter(model: "PreTrainedModel", settings: LoraSettings) -> "PeftModel":
    """A new adapter on every weight that the settings name; its B matrices are 0, so the model is unchanged at first.

    Raises: ConfigError, as `find_targets` does.
    """
    from peft import LoraConfig, PeftModel, TaskType, get_peft_model

    config = LoraConfig(task_type=TaskType.CAUSAL_LM, **settings.model_dump())
    with as_named():
        adapted = get_peft_model(model, put_on(config, model, find_targets(model, settings)))
    assert isinstance(adapted, PeftModel)
    return adapted


def load_adapter(model: "PreTrainedModel", folder: Path, trainable: bool = False) -> "PeftModel":
    """The base with the adapter of `folder`, whose weights must be safetensors, whole and finite.

    Raises: ConfigError, when the folder is not an adapter of this base, or not what its manifest says.
    """
    from peft import PeftConfig, PeftModel

    def load() -> PeftModel:
        config = as_trained(PeftConfig.from_pretrained(str(folder)), model)
        return PeftModel.from_pretrained(model, folder, is_trainable=trainable, config=config, use_safetensors=True)

    return _loaded(folder, FIRST, load)


def _loaded(folder: Path, name: str, load: "Callable[[], PeftModel]") -> "PeftModel":
    """The model that `load` makes of the folder, checked before and after. Raises: ConfigError."""
    place, file = f"adapter {str(folder)!r}", folder / ADAPTER
    if not file.is_file():
        raise ConfigError(f"{place}: has no {ADAPTER}, expected a PEFT adapter")
    if (folder / MANIFEST).is_file() and (problem := Checkpoint(folder).problem()):
        raise ConfigError(f"{place}: {problem}; bring the old files back")
    try:
        tensors = read_header(file)
        with as_named():  # what is missing is reported below, in words
            adapted = load()
    except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{place}: {_in_words(error)}") from error
    if problem := tensors_problem(adapted, tensors, name):
        raise ConfigError(f"{place}: {problem}; bring the old file back, or train it again")
    for tensor_name, tensor in adapter_tensors(adapted, name).items():
        if not tensor.isfinite().all():
            raise ConfigError(
                f"{place}: {tensor_name!r} holds values that are no numbers, expected finite ones; bring the old file "
                "back, or train it again"
            )
    return adapted


def load_to_answer(model: "PreTrainedModel", folder: Path, whole: bool = True) -> "PeftModel":
    """`load_adapter`, for a model that answers with the sums of training; not `whole` where it will be sharded.

    Raises: ConfigError, as `load_adapter` does.
    """
    from trainer.model.expert_layers import use_lora_experts
    from trainer.model.lora_linear import use_lora_linear

    adapted = load_adapter(model, folder).eval()
    use_lora_linear(adapted, answers=whole)
    use_lora_experts(adapted)
    return adapted


def add_to_answer(model: "PeftModel", folder: Path, name: str) -> None:
    """Put another adapter beside those that the model answers with; the active one stays active.

    Raises: ConfigError, as `load_adapter` does, and where PEFT cannot hold both. The model is then as before.
    """
    from trainer.model.lora_linear import use_lora_linear

    def load() -> "PeftModel":
        model.load_adapter(folder, adapter_name=name)
        return model

    for settings in (_settings(folder), *(held.to_dict() for held in model.peft_config.values())):
        _refuse_copies(folder, settings)
    try:
        _loaded(folder, name, load)
    except BaseException:
        remove_adapter(model, name)
        raise
    use_lora_linear(model.eval(), answers=True)


def remove_adapter(model: "PeftModel", name: str) -> None:
    """Take an adapter off, and its weights out of memory."""
    if name in model.peft_config:
        with as_named():  # which one is active next is the caller's to say
            model.delete_adapter(name)


def strip(model: "PreTrainedModel") -> None:
    """Give a base its own layers back, whatever an adapter that could not be loaded has left on it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer) and ".base_layer" not in name:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def _settings(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"adapter {str(folder)!r}: {ADAPTER_CONFIG} cannot be read: {error}") from None


def _refuse_copies(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raises: ConfigError, where an adapter holds copies of layers, or one of experts, which PEFT wraps whole."""
    for name in ("modules_to_save", "trainable_token_indices", "target_parameters"):
        if settings.get(name):
            raise ConfigError(
                f"adapter {str(folder)!r}: {name} is {quoted(settings[name])}, expected none where adapters share a "
                "base; serve it alone"
            )


def seal_adapter(folder: Path, step: int | None) -> None:
    """Write the manifest beside an adapter, which a load compares its files with."""
    content = {name: (folder / name).read_bytes() for name in (ADAPTER, ADAPTER_CONFIG)}
    files.write_whole(folder / MANIFEST, make_manifest(step, content))


def _in_words(error: Exception) -> str:
    """A header's problem, to follow the name of the file; else that it is the adapter of another base."""
    if isinstance(error, ValueError) and str(error).startswith(("is ", "has ", "ends ", "cannot ")):
        return f"{ADAPTER} {error}"
    reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
    return f"does not fit the base ({quoted(reason, 200)}); take the base that it was trained on"


def tensors_problem(model: "PeftModel", tensors: Mapping[str, TensorInfo], adapter: str = FIRST) -> str | None:
    """Problem of `tensors` that are not those of the model's adapter; None where they are."""
    expected = {name: tuple(tensor.shape) for name, tensor in adapter_tensors(model, adapter).items()}
    if missing := sorted(expected.keys() - tensors.keys()):
        return f"{len(missing)} of its {len(expected)} tensors are missing, such as {missing[0]!r}"
    if unknown := sorted(tensors.keys() - expected.keys()):
        return f"{len(unknown)} of its tensors have no place in this base, such as {unknown[0]!r}"
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            return f"{name!r} has the shape {tensors[name].shape}, expected {shape}"
    return None


def unchanged(file: Path, start: Path | None) -> bool:
    """True where the adapter in `file` equals the one in `start`, or, begun anew, still has a B of zeros only."""
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


def adapter_tensors(model: "PeftModel", name: str = FIRST) -> dict[str, "torch.Tensor"]:
    """The adapter's weights under the names of PEFT's own format; not copied."""
    from peft import get_peft_model_state_dict

    # "auto" asks the hub for the base's vocabulary at each checkpoint; an adapter never has embeddings here
    return dict(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))


def overwrite(tensors: "Mapping[str, torch.Tensor]", values: "Mapping[str, torch.Tensor]") -> None:
    """Overwrite the tensors where they are."""
    import torch

    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])


def adapter_config(model: "PeftModel") -> bytes:
    """The adapter's configuration in PEFT's own format."""
    config = model.active_peft_config.to_dict() | {"inference_mode": True}
    return json.dumps(on_disk(config, is_mixture(model)), indent=2).encode()
