"""The parts of a mixture of experts: weights of all experts in one parameter, and the routers that choose among them.

transformers holds the experts of a layer as parameters [experts, .., ..] of one module. Both parts are told by the
module that holds them, since their names differ: `gate`, `router`, `classifier`; `experts`, `input_linear`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

BLOCK = 64  # weights of NF4 that share a scale
ROUTERS = ("router", "gating")  # in the name of a router's class, in all families of transformers


@dataclass(frozen=True, slots=True)
class Stack:
    """The weights of all experts of a layer, in one parameter."""

    name: str  # full: model.layers.0.mlp.experts.down_proj
    module: Any
    parameter: str

    @property
    def weight(self) -> "torch.Tensor":
        """[experts, .., ..], or packed where it is quantized."""
        weight: torch.Tensor = getattr(self.module, self.parameter)
        return weight


def stacks(model: "nn.Module") -> Iterator[Stack]:
    """The experts' weights, in the order of the model."""
    for name, module in model.named_modules():
        for parameter, weight in module.named_parameters(recurse=False):
            if len(shape_of(weight)) == 3 and not _is_convolution(module):
                yield Stack(f"{name}.{parameter}", module, parameter)


def is_mixture(model: "nn.Module") -> bool:
    """True for a model of layers with several experts."""
    return any(True for _ in stacks(model))


def is_packable(module: Any) -> bool:
    """True for experts that transformers computes in a way that can be chosen, so also in ours."""
    return hasattr(module, "_apply_gate") and hasattr(module, "is_transposed")


def can_be_packed(stack: Stack) -> bool:
    """True for weights that NF4 can hold: no block has those of two experts."""
    return is_packable(stack.module) and prod(shape_of(stack.weight)[1:]) % BLOCK == 0


def shape_of(weight: Any) -> tuple[int, ...]:
    """The shape of a weight, also of one that is packed."""
    state = getattr(weight, "quant_state", None)
    return tuple(weight.shape if state is None else state.shape)


def routers(model: "nn.Module") -> dict[str, "nn.Module"]:
    """The modules that choose experts, by name: those whose class says so, and layers of so few outputs beside experts.

    A shared expert's own gate is one of the latter: it has one output.
    """
    found = {name: module for name, module in model.named_modules() if _is_router(module)}
    for place, (parent, experts) in _experts_in(model).items():
        for child, module in parent.named_children():
            if _num_outputs(module) in (1, experts):
                found[f"{place}.{child}"] = module
    return found


def _num_outputs(module: Any) -> int | None:
    """Of a layer; of a quantized one too, whose weight is packed."""
    weight = module._parameters.get("weight")
    if weight is None or weight.ndim != 2:
        return None
    return int(getattr(module, "out_features", weight.shape[0]))


def is_within(name: str, places: "Iterable[str]") -> bool:
    """True for the name of one of these modules, or of something in one."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


def _experts_in(model: "nn.Module") -> "dict[str, tuple[nn.Module, int]]":
    """The modules that hold the experts of a layer beside its router, and how many experts there are."""
    places = {stack.name.rsplit(".", 2)[0]: shape_of(stack.weight)[0] for stack in stacks(model)}
    return {place: (model.get_submodule(place), number) for place, number in places.items()}


def _is_router(module: "nn.Module") -> bool:
    return any(word in type(module).__name__.lower() for word in ROUTERS)


def _is_convolution(module: "nn.Module") -> bool:
    return type(module).__module__.startswith("torch.nn")
