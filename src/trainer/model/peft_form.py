"""An adapter's shape as PEFT takes it: which layers, and which parameters of experts and routers.

PEFT reads names such as `gate_proj` in a mixture of experts as those of a time when each expert had layers of its own.
It then adapts all experts and routers in their place, at twice the rank, and leaves the layers of that name without an
adapter: those of shared experts, and of the first layers of DeepSeek V3. So layers are put on with that reading
switched off, and on disk such a layer is called by its weight, which PEFT leaves alone. The tensors are the same.
"""

import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trainer.model.experts import is_mixture
from trainer.model.targets import EVERYTHING, AdapterTarget, linear_modules

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

WEIGHT = ".weight"


def put_on(config: "LoraConfig", model: "PreTrainedModel", targets: Collection[AdapterTarget]) -> "LoraConfig":
    """The configuration with these targets; as it is where PEFT reads just them from it."""
    if is_mixture(model) or {target.name for target in targets} != _read_by_peft(config, model):
        config.target_modules = {target.name for target in targets if target.is_layer}
        config.target_parameters = sorted(target.name for target in targets if not target.is_layer) or None
    return config


def _read_by_peft(config: "LoraConfig", model: "PreTrainedModel") -> set[str]:
    names, layers = config.target_modules, {name for name, _ in linear_modules(model)}
    return layers if names == EVERYTHING else {name for name in layers if f".{name}".endswith(_ends(names or ()))}


def _ends(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f".{name}" for name in names)


def as_trained(config: "LoraConfig", model: "PreTrainedModel") -> "LoraConfig":
    """A configuration from disk, with linear layers among its layers that it calls by their weights."""
    layers = {f"{name}{WEIGHT}": name for name, _ in linear_modules(model)}
    parameters = set(config.target_parameters or ())
    if found := parameters & layers.keys():
        config.target_modules = {*(config.target_modules or ()), *(layers[name] for name in found)}
        config.target_parameters = sorted(parameters - found)
    return config


def on_disk(config: dict[str, Any], has_experts: bool) -> dict[str, Any]:
    """The fields of a configuration; of a mixture of experts with layers called by their weights."""
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    if has_experts:
        layers = {name for name in plain["target_modules"] if name.endswith(_misread())}
        plain["target_modules"] = sorted({*plain["target_modules"]} - layers)
        named = [*(plain.get("target_parameters") or ()), *(f"{name}{WEIGHT}" for name in layers)]
        plain["target_parameters"] = sorted(named) or None
    return plain


def _misread() -> tuple[str, ...]:
    """Ends of names that PEFT reads as those of experts, in any family."""
    from peft.utils.transformers_weight_conversion import _MOE_TARGET_MODULE_MAPPING as READINGS

    return _ends(sorted({name for names in READINGS.values() for name in names}))


@contextmanager
def as_named() -> Iterator[None]:
    """PEFT takes names as they are, and says nothing of its own."""
    from peft.utils import transformers_weight_conversion as reading

    before = reading.convert_peft_config_for_transformers
    reading.convert_peft_config_for_transformers = lambda *args, **kwargs: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        reading.convert_peft_config_for_transformers = before
