"""The adapter: LoRA weights put onto a base, made new or loaded from a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

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

    place, file = f"adapter {str(folder)!r}", folder / ADAPTER
    if not file.is_file():
        raise ConfigError(f"{place}: has no {ADAPTER}, expected a PEFT adapter")
    if (folder / MANIFEST).is_file() and (problem := Checkpoint(folder).problem()):
        raise ConfigError(f"{place}: {problem}; bring the old files back")
    try:
        tensors = read_header(file)
        config = as_trained(PeftConfig.from_pretrained(str(folder)), model)
        with as_named():  # what is missing is reported below, in words
            adapted = PeftModel.from_pretrained(
                model, folder, is_trainable=trainable, config=config, use_safetensors=True
            )
    except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{place}: {_in_words(error)}") from error
    if problem := tensors_problem(adapted, tensors):
        raise ConfigError(f"{place}: {problem}; bring the old file back, or train it again")
    for name, tensor in adapter_tensors(adapted).items():
        if not tensor.isfinite().all():
            raise ConfigError(
                f"{place}: {name!r} holds values that are no numbers, expected finite ones; bring the old file back, "
                "or train it again"
            )
    return adapted


def load_to_answer(model: "PreTrainedModel", folder: Path, whole: bool = True) -> "PeftModel":
    """`load_adapter`, for a model that answers with the sums of training; not `whole` where it will be sharded.

    Raises: ConfigError, as `load_adapter` does.
    """
    from trainer.model.lora_linear import use_lora_linear

    adapted = load_adapter(model, folder).eval()
    use_lora_linear(adapted, answers=whole)
    return adapted


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


def tensors_problem(model: "PeftModel", tensors: Mapping[str, TensorInfo]) -> str | None:
    """Problem of `tensors` that are not those of the model's adapter; None where they are."""
    expected = {name: tuple(tensor.shape) for name, tensor in adapter_tensors(model).items()}
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


def adapter_tensors(model: "PeftModel") -> dict[str, "torch.Tensor"]:
    """The adapter's weights under the names of PEFT's own format; not copied."""
    from peft import get_peft_model_state_dict

    # "auto" asks the hub for the base's vocabulary at each checkpoint; an adapter never has embeddings here
    return dict(get_peft_model_state_dict(model, save_embedding_layers=False))


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
