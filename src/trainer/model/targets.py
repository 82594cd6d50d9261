"""The weights that an adapter changes: the linear layers, experts and routers that `lora.target_modules` names."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from trainer.config.schema import LoraSettings
from trainer.errors import ConfigError
from trainer.model.experts import is_within, routers, shape_of, stacks

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

EVERYTHING = "all-linear"


@dataclass(frozen=True, slots=True)
class AdapterTarget:
    """A weight that can get an adapter: of a linear layer, of all experts of a layer, or of a router."""

    name: str  # of the layer; of experts and routers, that of the parameter
    shape: tuple[int, ...]  # [out, in], or [experts, .., ..]
    is_layer: bool
    is_router: bool

    @property
    def num_weights(self) -> int:
        return prod(self.shape)

    def num_trained(self, settings: LoraSettings) -> int:
        """Weights of its adapter: for each expert a matrix A and a matrix B; with DoRA a length for each output."""
        lengths = self.shape[-2] if settings.use_dora else 0
        return prod(self.shape[:-2]) * (settings.r * sum(self.shape[-2:]) + lengths)

    def is_meant(self, named: str) -> bool:
        """True where `named` is its name, the end of it, or the name of a module that holds it."""
        return f".{named}." in f".{self.name}." and (not self.is_router or f".{self.name}".endswith(_ends(named)))


def _ends(named: str) -> tuple[str, ...]:
    """A router must be named itself: `mlp` means the layers and the experts in it."""
    return f".{named}", f".{named}.weight"


def find_targets(model: "PreTrainedModel", settings: LoraSettings) -> list[AdapterTarget]:
    """The weights that get an adapter. Raises: ConfigError, for names of none, and for what experts do not take."""
    known = list(possible_targets(model))
    if settings.target_modules == EVERYTHING:
        chosen = [target for target in known if not target.is_router]
    else:
        chosen = [target for target in known if any(map(target.is_meant, settings.target_modules))]
    problems = [*_unknown(known, settings), *_refused(chosen, settings)]
    if problems:
        raise ConfigError(*problems)
    return chosen


def num_trained(model: "PreTrainedModel", settings: LoraSettings) -> int:
    """Weights of the adapter."""
    return sum(target.num_trained(settings) for target in find_targets(model, settings))


def possible_targets(model: "PreTrainedModel") -> Iterator[AdapterTarget]:
    """Every weight that can get an adapter, in the order of layers, experts, routers."""
    choosing = routers(model)
    for name, weight in linear_modules(model):
        yield AdapterTarget(name, shape_of(weight), is_layer=True, is_router=is_within(name, choosing))
    for stack in stacks(model):
        yield AdapterTarget(stack.name, shape_of(stack.weight), is_layer=False, is_router=False)
    linear = {name for name, _ in linear_modules(model)}
    for name, module in choosing.items():
        chosen_by = module._parameters.get("weight")
        if name not in linear and chosen_by is not None and chosen_by.ndim == 2:
            yield AdapterTarget(f"{name}.weight", shape_of(chosen_by), is_layer=False, is_router=True)


def linear_modules(model: "PreTrainedModel") -> "Iterator[tuple[str, torch.Tensor]]":
    """Name and weight of each linear layer except the output head."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head:
            yield name, module.weight


def _unknown(known: list[AdapterTarget], settings: LoraSettings) -> Iterator[str]:
    if settings.target_modules == EVERYTHING:
        return
    names = sorted({_short(target) for target in known})
    for named in settings.target_modules:
        if not any(target.is_meant(named) for target in known):
            yield (
                f"lora.target_modules: {named!r} matches no layer of this model, expected some of: {', '.join(names)}"
            )


def _short(target: AdapterTarget) -> str:
    parts = target.name.split(".")
    return parts[-1] if target.is_layer else ".".join(parts[-2:])


def _refused(chosen: list[AdapterTarget], settings: LoraSettings) -> Iterator[str]:
    """An adapter on experts has no input of its own that could be dropped, and no length that could be set."""
    apart = next((target for target in chosen if not target.is_layer), None)
    if apart is None:
        return
    unset: dict[str, Any] = {"lora_dropout": 0.0, "use_dora": False}
    for name, value in unset.items():
        if getattr(settings, name) != value:
            layers = sorted({_short(target) for target in chosen if target.is_layer})
            others = f", or name layers alone in lora.target_modules: {', '.join(layers)}" if layers else ""
            yield (
                f"lora.{name}: is {getattr(settings, name)!r}, and {_short(apart)!r} gets an adapter, which takes "
                f"none, expected {value!r}; set it to {str(value).lower()}{others}"
            )
