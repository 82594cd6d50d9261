"""An adapted linear layer computed in the base's number format, while its adapter stays in float32.

PEFT casts the layer's input up to the adapter's float32, multiplies there, and passes over the layer's whole output
three more times. Here both products are in the base's format, the second adds to the base's output, and what is kept
for the backward pass is the input, which neighboring layers share, and its r-dimensional image. A quantized base
computes its own product; the adapter's is added to it in one pass. DoRA's norms are found without the weight that they
are of. PEFT keeps DoRA with dropout, which multiplies by the base twice, and DoRA on a quantized base: both would have
to hold or restore the base's weights, which is most of their time.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners import lora
from torch import Tensor, nn

if TYPE_CHECKING:
    from peft import PeftModel


class LoraLinear:
    """PEFT's layer with another forward pass: same weights, same names, same file. Put before a class of PEFT's."""

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters or self.merged or args or kwargs:
            output: Tensor = super().forward(x, *args, **kwargs)  # type: ignore[misc]  # PEFT's
            return output
        (name,) = self.active_adapters
        a, b, scaling = self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]
        base, dropout = self.base_layer, self.lora_dropout[name]
        product: Tensor
        if self.lora_variant:
            product = _LoraProduct.apply(x, base.weight, None, a, b, scaling)  # type: ignore[no-untyped-call]
            product = product * (self.lora_magnitude_vector[name].weight / _norms(self, a, b, scaling)).to(x.dtype)
            return product if base.bias is None else product + base.bias
        if type(base) is nn.Linear and isinstance(dropout, nn.Identity):
            product = _LoraProduct.apply(x, base.weight, base.bias, a, b, scaling)  # type: ignore[no-untyped-call]
        else:
            product = _LoraSum.apply(base(x), dropout(x), a, b, scaling)  # type: ignore[no-untyped-call]
        return product


def use_lora_linear(model: "PeftModel") -> None:
    """Let every plain LoRA layer compute this way; the others stay PEFT's."""
    for module in model.modules():
        if _is_plain(module):
            kind: Any = type(module)
            module.__class__ = _faster(kind)


@cache
def _faster(kind: Any) -> Any:
    return type(kind.__name__, (LoraLinear, kind), {})


def _is_plain(module: Any) -> bool:
    """One adapter without bias on torch's own linear layer or one of bitsandbytes; DoRA as far as said above."""
    return (
        isinstance(module, lora.LoraLayer)
        and type(module).__name__ in ("Linear", "Linear4bit", "Linear8bitLt")
        and not isinstance(module, LoraLinear)
        and isinstance(module.base_layer, nn.Linear)
        and len(module.active_adapters) == 1
        and set(module.active_adapters) <= set(module.lora_A)
        and (not module.lora_variant or _is_plain_dora(module))
        and not any(module.lora_bias.values())
        and not module.base_layer.weight.requires_grad
    )


def _is_plain_dora(module: Any) -> bool:
    return (
        type(module.base_layer) is nn.Linear
        and all(type(variant).__name__ == "DoraLinearVariant" for variant in module.lora_variant.values())
        and all(isinstance(dropout, nn.Identity) for dropout in module.lora_dropout.values())
    )


@torch.no_grad()
def _norms(module: Any, a: Tensor, b: Tensor, scaling: float) -> Tensor:
    """The length of each row of W + scaling * B A [out], from |W|^2 + 2 s W A^T . B + s^2 B A A^T . B."""
    weight = module.base_layer.weight
    if not hasattr(module, "base_squares"):
        module.base_squares = torch.linalg.vector_norm(weight, dim=1, dtype=a.dtype) ** 2  # the base is frozen
    crossed = (weight @ a.to(weight.dtype).t()).to(a.dtype)
    own = b @ (a @ a.t())
    squares: Tensor = module.base_squares + ((2 * scaling * crossed + scaling**2 * own) * b).sum(1)
    return squares.sqrt()


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
        return _shaped(output, x)

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


class _LoraSum(torch.autograd.Function):
    """base + scaling * (x A^T) B^T, for a base [..., out] that computed its own product."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, x: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:
        image = x.reshape(-1, x.shape[-1]) @ a.to(x.dtype).t()  # [N, r]
        ctx.save_for_backward(x, a, b, image)
        ctx.scaling = scaling
        output = torch.addmm(base.reshape(-1, base.shape[-1]), image, (b * scaling).to(x.dtype).t())
        return _shaped(output, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor, None]:
        x, a, b, image = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, b.shape[0])
        pulled = gradient @ (b * ctx.scaling).to(x.dtype)  # [N, r]
        a_gradient = (pulled.t() @ x.reshape(-1, x.shape[-1])).to(a.dtype)
        b_gradient = (image.t() @ gradient).t().to(b.dtype) * ctx.scaling
        x_gradient = (pulled @ a.to(x.dtype)).view(x.shape) if ctx.needs_input_grad[1] else None
        return gradients[0], x_gradient, a_gradient, b_gradient, None


def _shaped(rows: Tensor, like: Tensor) -> Tensor:
    """Rows [N, out] in the shape of `like` [..., in], and no view of them: models add to a layer's output in place."""
    shaped: Tensor = torch.ops.aten._unsafe_view(rows, [*like.shape[:-1], rows.shape[-1]])
    return shaped
