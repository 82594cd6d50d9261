"""An adapted linear layer computed in the base's number format, while its adapter stays in float32.

PEFT casts the layer's input up to the adapter's float32, multiplies there, and passes over the layer's whole output
three more times. Here both products are in the base's format, the second adds to the base's output in place, and what
is kept for the backward pass is the input, which neighboring layers share, and its r-dimensional image.
"""

from typing import TYPE_CHECKING, Any

import torch
from peft.tuners import lora
from torch import Tensor, nn

if TYPE_CHECKING:
    from peft import PeftModel


class LoraLinear(lora.Linear):  # type: ignore[misc]  # PEFT is not typed
    """PEFT's layer with another forward pass: same weights, same names, same file."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters or self.merged or args or kwargs:
            output: Tensor = super().forward(x, *args, **kwargs)
            return output
        (name,) = self.active_adapters
        adapter = self.lora_A[name].weight, self.lora_B[name].weight
        product: Tensor = _LoraProduct.apply(
            x, self.base_layer.weight, self.base_layer.bias, *adapter, self.scaling[name]
        )  # type: ignore[no-untyped-call]
        return product


def use_lora_linear(model: "PeftModel") -> None:
    """Let every plain LoRA layer on an unquantized base compute this way; the others stay PEFT's."""
    for module in model.modules():
        if _is_plain(module):
            module.__class__ = LoraLinear


def _is_plain(module: Any) -> bool:
    """One adapter without dropout, bias or variant (DoRA) on torch's own linear layer."""
    return (
        type(module) is lora.Linear
        and type(module.base_layer) is nn.Linear
        and len(module.active_adapters) == 1
        and set(module.active_adapters) <= set(module.lora_A)
        and not module.lora_variant
        and not any(module.lora_bias.values())
        and all(isinstance(dropout, nn.Identity) for dropout in module.lora_dropout.values())
        and not module.base_layer.weight.requires_grad
    )


class _LoraProduct(torch.autograd.Function):
    """x W^T + bias + scaling * (x A^T) B^T, with W [out, in], A [r, in], B [out, r]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        image = rows @ a.to(x.dtype).t()  # [N, r]
        output = nn.functional.linear(rows, weight, bias)
        output.addmm_(image, (b * scaling).to(x.dtype).t())
        ctx.save_for_backward(x, weight, a, b, image)
        ctx.scaling = scaling
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        x, weight, a, b, image = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, weight.shape[0])
        pulled = gradient @ (b * ctx.scaling).to(x.dtype)  # [N, r]
        a_gradient = (pulled.t() @ x.reshape(-1, x.shape[-1])).to(a.dtype)
        b_gradient = (image.t() @ gradient).t().to(b.dtype) * ctx.scaling
        if not ctx.needs_input_grad[0]:
            return None, None, None, a_gradient, b_gradient, None
        x_gradient = (gradient @ weight).addmm_(pulled, a.to(x.dtype))
        return x_gradient.view(x.shape), None, None, a_gradient, b_gradient, None
