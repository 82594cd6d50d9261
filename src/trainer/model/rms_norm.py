"""RMSNorm that keeps its input for the backward pass and little else.

transformers' own keeps a float32 copy of it: a tenth of what a layer keeps. It also makes twice as many passes over it.
The numbers are the same: what is normalized in float32 is rounded to the model's format and then multiplied by the
weights.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROUNDING = 5e-4  # where sums in another order change a few last bits; rounding before another product changes more


class LeanNorm:
    """A model's norm with another forward pass. Put before a class of transformers'."""

    def forward(self: Any, hidden_states: Tensor) -> Tensor:
        output: Tensor = _RmsNorm.apply(hidden_states, self.weight, self.variance_epsilon)  # type: ignore[no-untyped-call]
        return output


def use_lean_norms(model: "PreTrainedModel") -> None:
    """Let every frozen norm that computes the same keep less; the others stay the model's own."""
    for module in model.modules():
        if _is_usual(module) and not module.weight.requires_grad and _is_same(module):
            kind: Any = type(module)
            module.__class__ = _leaner(kind)


def has_lean_norms(model: "PreTrainedModel") -> bool:
    """True where `use_lean_norms` will find some, as far as it shows without weights."""
    return any(map(_is_usual, model.modules()))


def _is_usual(module: Any) -> bool:
    return (
        type(module).__name__.endswith("RMSNorm")
        and hasattr(module, "variance_epsilon")
        and [name for name, _ in module.named_parameters()] == ["weight"]
        and not isinstance(module, LeanNorm)
    )


@cache
def _leaner(kind: Any) -> Any:
    return type(kind.__name__, (LeanNorm, kind), {})


@torch.no_grad()
def _is_same(module: Any) -> bool:
    """Some norms multiply by 1 + weight, or before they round, or have a gate."""
    width = len(module.weight)
    hidden = torch.linspace(-2, 3, 64 * width, device=module.weight.device).view(64, width).to(module.weight.dtype)
    try:
        expected = module(hidden)
    except TypeError:
        return False
    difference = LeanNorm.forward(module, hidden) - expected
    return bool(difference.float().norm() <= ROUNDING * expected.float().norm())


class _RmsNorm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + epsilon) in float32, rounded, times weight [H]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.float()
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        scale.add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        output: Tensor = weight * (wide * scale).to(x.dtype)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        gradient, normalized = (gradients[0] * weight).float(), x.float() * scale
        along = (gradient * normalized).mean(dim=-1, keepdim=True)
        return gradient.sub_(normalized.mul_(along)).mul_(scale).to(x.dtype), None, None
