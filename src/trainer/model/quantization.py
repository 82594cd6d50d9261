"""Storage of a base's weights: as they are, quantized when they are loaded, or quantized already by its authors."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from math import ceil, prod
from typing import TYPE_CHECKING, Any

from trainer.config.schema import ModelConfig
from trainer.errors import ConfigError, quoted
from trainer.extras import need
from trainer.model.experts import can_be_packed, is_within, routers, stacks
from trainer.model.targets import linear_modules
from trainer.model.weight_files import TensorInfo

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

DEQUANTIZED = "mxfp4"  # gpt-oss: trained in the number format, which transformers makes of it while it loads
NOTES_OF_A_WEIGHT = (
    ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".quant_state.bitsandbytes__nf4",
)  # fmt: skip
NOTES_OF_A_LAYER = (".SCB", ".weight_format")  # of int8


def own_scheme(config: "PretrainedConfig", name: str) -> str:
    """The authors' own quantization of the weights, in the words of model.quantization.

    Raises: ConfigError, for a scheme that is not trained here.
    """
    own = own_settings(config)
    if not own or own.get("quant_method") == DEQUANTIZED:
        return "none"
    if own.get("quant_method") == "bitsandbytes" or "load_in_4bit" in own or "load_in_8bit" in own:
        if own.get("load_in_8bit"):
            return "int8"
        if own.get("load_in_4bit") and own.get("bnb_4bit_quant_type") == "nf4":
            return "nf4"
    found = own.get("bnb_4bit_quant_type") or own.get("quant_method")
    raise ConfigError(
        f"model.base: {name!r} is quantized with {quoted(found)}, expected a base that is not quantized, or one that "
        "bitsandbytes has quantized with nf4 or int8; choose the unquantized original and set model.quantization=nf4"
    )


def own_settings(config: "PretrainedConfig") -> dict[str, Any]:
    """`quantization_config` of config.json; empty where there is none."""
    found = getattr(config, "quantization_config", None) or {}
    return dict(found) if isinstance(found, Mapping) else dict(found.to_dict())


def adopted(settings: ModelConfig, config: "PretrainedConfig") -> ModelConfig:
    """The settings with the scheme that the base itself has, which is what is trained, shown and recorded.

    Raises: ConfigError, when they ask for another one.
    """
    own = own_scheme(config, settings.base)
    if not own_settings(config) or settings.quantization == own:
        return settings
    if settings.quantization != "none":
        held = DEQUANTIZED if own == "none" else own
        raise ConfigError(
            f"model.quantization: is {settings.quantization!r}, but {settings.base!r} is quantized already with "
            f"{held!r}; leave it out, or choose the unquantized original as model.base"
        )
    return settings.model_copy(update={"quantization": own})


def loading_arguments(config: "PretrainedConfig", settings: ModelConfig, dtype: "torch.dtype") -> dict[str, Any]:
    """Arguments of from_pretrained by which the weights are held as the settings say.

    Raises: ConfigError, MissingDependency.
    """
    own, scheme = own_settings(config), adopted(settings, config).quantization
    if scheme == "none" and not own:
        return {}
    if scheme == "none":
        from transformers import Mxfp4Config

        return {"quantization_config": Mxfp4Config(dequantize=True)}
    made = _bitsandbytes(scheme, dtype)
    if not own:
        return {"quantization_config": made}
    kept = own | {"bnb_4bit_compute_dtype": str(dtype).removeprefix("torch.")}
    return {"config": type(config).from_dict(config.to_dict() | {"quantization_config": kept})}


def quantizing(config: "PretrainedConfig", settings: ModelConfig) -> AbstractContextManager[None]:
    """To load a base in: what is quantized to NF4 meanwhile has its experts quantized too."""
    if not _packs_experts(config, settings):
        return nullcontext()
    from trainer.model.nf4 import packs_experts

    return packs_experts()


def _packs_experts(config: "PretrainedConfig", settings: ModelConfig) -> bool:
    """A base that its authors have quantized stays as it is."""
    return not own_settings(config) and settings.quantization == "nf4"


def quantized_weights(model: "PreTrainedModel", settings: ModelConfig) -> set[str]:
    """Names of the weights that are quantized: of linear layers and experts, and not of routers."""
    if adopted(settings, model.config).quantization == "none":
        return set()
    choosing = routers(model)
    found = {f"{name}.weight" for name, _ in linear_modules(model) if not is_within(name, choosing)}
    if _packs_experts(model.config, settings):
        found |= {stack.name for stack in stacks(model) if can_be_packed(stack)}
    return found


def left_out(model: "PreTrainedModel", settings: ModelConfig) -> tuple[int, int]:
    """Weights of layers and experts that the settings' quantization leaves as they are, and all of them."""
    reached, choosing = quantized_weights(model, settings), routers(model)
    meant = {f"{name}.weight": weight for name, weight in linear_modules(model) if not is_within(name, choosing)}
    meant |= {stack.name: stack.weight for stack in stacks(model)}
    left = sum(weight.numel() for name, weight in meant.items() if name not in reached)
    return left, sum(weight.numel() for weight in meant.values())


def _bitsandbytes(scheme: str, dtype: "torch.dtype") -> Any:
    from transformers import BitsAndBytesConfig

    need(f"model.quantization: {scheme!r}", "bitsandbytes", extra="local")
    if scheme == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
    )


def as_unquantized(tensors: Mapping[str, TensorInfo], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, TensorInfo]:
    """The tensors as if bitsandbytes had not quantized them: 4-bit weights are packed, two in a byte, in one column.

    `shapes` are those of the model. Notes beside a weight, such as its scales, are left out; a packed weight that lacks
    them, or has another number of values, stays as it is, and fits no model.
    """
    found = {}
    for name, info in tensors.items():
        if name.endswith((*NOTES_OF_A_WEIGHT, *NOTES_OF_A_LAYER)):
            continue
        shape = shapes.get(name)
        is_packed = info.dtype == "U8" and {f"{name}.absmax", f"{name}.quant_map"} <= tensors.keys()
        if is_packed and shape is not None and prod(info.shape) == ceil(prod(shape) / 2):
            info = TensorInfo(info.dtype, shape)
        found[name] = info
    return found
