"""An adapted linear layer computed in the base's number format, while its adapter stays in float32.

PEFT casts the layer's input up to the adapter's float32, multiplies there, and passes over the layer's whole output
three more times. Here both products are in the base's format, and what is kept for the backward pass is the input,
which neighboring layers share, and its r-dimensional image.

In 16 bits base and adapter are one product, [x, x A^T] [W, s B]^T, summed in the hardware's float32 and rounded once.
Added to an output that is rounded already, all of an adapter that changes it by less than half its last bit is lost,
which is most of a young one. An NF4 base is dequantized for that, as bitsandbytes does itself. With dropout, and in
int8, the base computes its own product; the adapter's is added to it in one pass.

A layer may carry several adapters, of which one is active at a time.

DoRA's norms are found without the weight that they are of. PEFT keeps DoRA with dropout, which multiplies by the base
twice, and DoRA on a quantized base: both would have to hold or restore the base's weights, which is most of their time.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners import lora
from torch import Tensor, nn

if TYPE_CHECKING:
    from peft import PeftModel


MIN_ROWS_TO_DEQUANTIZE = 32  # fewer, as in answering token by token, go through bitsandbytes' own kernels


class LoraLinear:
    """PEFT's layer with another forward pass: same weights, same names, same file. Put before a class of PEFT's."""

    plain: frozenset[str] = frozenset()  # names of the adapters that are computed here; the others are PEFT's
    answers = False  # with weights that no longer change: base and adapter stand side by side in memory
    joined: Tensor | None = None  # [W, s B] with room for the largest B, of which the base's weight is a view
    joined_from: tuple[object, ...] = ()

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        (name,) = self.active_adapters or ("",)
        if self.disable_adapters or self.merged or args or kwargs or name not in self.plain:
            output: Tensor = super().forward(x, *args, **kwargs)  # type: ignore[misc]  # PEFT's
            return output
        a, b, scaling = self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]
        base, dropout = self.base_layer, self.lora_dropout[name]
        product: Tensor
        if name in self.lora_variant:
            product = _LoraProduct.apply(x, base.weight, None, a, b, scaling)  # type: ignore[no-untyped-call]
            product = product * (self.lora_magnitude_vector[name].weight / _norms(self, a, b, scaling)).to(x.dtype)
            return product if base.bias is None else product + base.bias
        if self.answers and _is_joined(base, x) and not torch.is_grad_enabled() and not self.training:
            return _shaped(_joined_product(x, _joined_weight(self, b, scaling), a, base.bias), x)
        if type(base) is nn.Linear and isinstance(dropout, nn.Identity):
            product = _LoraProduct.apply(x, base.weight, base.bias, a, b, scaling)  # type: ignore[no-untyped-call]
        elif _is_joined_nf4(base, x) and isinstance(dropout, nn.Identity):
            product = _Nf4Product.apply(x, base.weight, base.bias, a, b, scaling)  # type: ignore[no-untyped-call]
        else:
            product = _LoraSum.apply(base(x), dropout(x), a, b, scaling)  # type: ignore[no-untyped-call]
        return product


def use_lora_linear(model: "PeftModel", answers: bool = False) -> None:
    """Let every plain LoRA layer compute this way; the others stay PEFT's.

    With `answers` the model only answers: the base's weights move once, so that no token copies them. A base that is
    sharded cannot move.
    """
    for module in model.modules():
        if not isinstance(module, lora.LoraLayer):
            continue
        layer: Any = module
        plain = frozenset(name for name in layer.lora_A if _is_plain(layer, name))
        if plain and not isinstance(layer, LoraLinear):
            kind: Any = type(layer)
            layer.__class__ = _faster(kind)
        if isinstance(layer, LoraLinear):
            layer.plain, layer.answers = plain, answers


@cache
def _faster(kind: Any) -> Any:
    return type(kind.__name__, (LoraLinear, kind), {})


def _is_plain(layer: Any, name: str) -> bool:
    """An adapter without bias on torch's own linear layer or one of bitsandbytes; DoRA as far as said above."""
    return (
        type(layer).__name__ in ("Linear", "Linear4bit", "Linear8bitLt")
        and isinstance(layer.base_layer, nn.Linear)
        and (name not in layer.lora_variant or _is_plain_dora(layer, name))
        and not layer.lora_bias[name]
        and not layer.base_layer.weight.requires_grad
    )


def _is_plain_dora(layer: Any, name: str) -> bool:
    return (
        type(layer.base_layer) is nn.Linear
        and type(layer.lora_variant[name]).__name__ == "DoraLinearVariant"
        and isinstance(layer.lora_dropout[name], nn.Identity)
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
        ctx.save_for_backward(x, weight, a, b, image)
        ctx.scaling = scaling
        return _shaped(sum_of_products(rows, weight.t(), image, (b * scaling).to(x.dtype).t(), bias), x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        x, weight, a, b, image = ctx.saved_tensors
        return _lora_gradients(ctx, gradients[0], x, lambda: weight, a, b, image)


class _Nf4Product(torch.autograd.Function):
    """The same for a 4-bit base in its own compute format: its weight is dequantized in each pass and never kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Any, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        image = rows @ a.to(x.dtype).t()  # [N, r]
        ctx.save_for_backward(x, a, b, image)
        ctx.scaling, ctx.weight = scaling, weight
        bias = None if bias is None else bias.to(x.dtype)
        product = sum_of_products(rows, _dequantized(weight, x), image, (b * scaling).to(x.dtype).t(), bias)
        return _shaped(product, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        x, a, b, image = ctx.saved_tensors
        return _lora_gradients(ctx, gradients[0], x, lambda: _dequantized(ctx.weight, x).t(), a, b, image)


def _lora_gradients(
    ctx: Any, gradient: Tensor, x: Tensor, weight: Callable[[], Tensor], a: Tensor, b: Tensor, image: Tensor
) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
    gradient = gradient.reshape(-1, b.shape[0])
    pulled = gradient @ (b * ctx.scaling).to(x.dtype)  # [N, r]
    a_gradient = (pulled.t() @ x.reshape(-1, x.shape[-1])).to(a.dtype)
    b_gradient = (image.t() @ gradient).t().to(b.dtype) * ctx.scaling
    if not ctx.needs_input_grad[0]:
        return None, None, None, a_gradient, b_gradient, None
    x_gradient = sum_of_products(gradient, weight(), pulled, a.to(x.dtype), None)
    return x_gradient.view(x.shape), None, None, a_gradient, b_gradient, None


def sum_of_products(left: Tensor, right: Tensor, low_left: Tensor, low_right: Tensor, bias: Tensor | None) -> Tensor:
    """Compute left @ right + low_left @ low_right (+ bias); in 16 bits as one product, at the cost of copies."""
    if left.dtype in (torch.bfloat16, torch.float16):
        left = torch.cat([left, low_left], 1)
        # Copied as they lie: a transposed matrix row by row of what it is the transpose of.
        is_turned = not right.is_contiguous()
        right = torch.cat([right.t(), low_right.t()], 1).t() if is_turned else torch.cat([right, low_right])
        return left @ right if bias is None else torch.addmm(bias, left, right)
    product = left @ right if bias is None else torch.addmm(bias, left, right)
    return product.addmm_(low_left, low_right)


def _is_joined(base: Any, x: Tensor) -> bool:
    return type(base) is nn.Linear and x.dtype in (torch.bfloat16, torch.float16) and base.weight.dtype == x.dtype


def _joined_weight(module: Any, b: Tensor, scaling: float) -> Tensor:
    """[W, s B, 0], [out, in + r, to a multiple of 8]; B anew where another one stands there, or was written into it."""
    base, now = module.base_layer, (b, b._version, scaling)
    num_in, rank = base.weight.shape[1], b.shape[1]
    width = num_in + _aligned(rank)
    joined: Tensor | None = module.joined
    if joined is None or base.weight.data_ptr() != joined.data_ptr() or joined.shape[1] < width:
        room = max(_aligned(other.weight.shape[1]) for other in module.lora_B.values())
        joined = base.weight.new_zeros(base.weight.shape[0], num_in + room)
        joined[:, :num_in] = base.weight
        base.weight.data = joined[:, :num_in]
        module.joined, module.joined_from = joined, ()
    if module.joined_from[1:] != now[1:] or module.joined_from[0] is not b:
        joined[:, num_in : num_in + rank] = b * scaling
        joined[:, num_in + rank : width] = 0
        module.joined_from = now
    return joined[:, :width]


def _aligned(rank: int) -> int:
    """The next multiple of 8, which tensor cores ask of a row."""
    return -(-rank // 8) * 8


def _joined_product(x: Tensor, joined: Tensor, a: Tensor, bias: Tensor | None) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    image = nn.functional.linear(rows, a.to(x.dtype))
    image = nn.functional.pad(image, (0, joined.shape[1] - rows.shape[1] - image.shape[1]))
    return nn.functional.linear(torch.cat([rows, image], 1), joined, bias)


def _is_joined_nf4(base: Any, x: Tensor) -> bool:
    return (
        type(base).__name__ == "Linear4bit"
        and x.dtype in (torch.bfloat16, torch.float16)
        and base.compute_dtype in (None, x.dtype)
        and x.shape[:-1].numel() >= MIN_ROWS_TO_DEQUANTIZE
    )


def _dequantized(weight: Any, x: Tensor) -> Tensor:
    """The weight of a 4-bit layer, transposed: [in, out]."""
    from bitsandbytes.functional import dequantize_4bit

    found: Tensor = dequantize_4bit(weight.data, weight.quant_state).to(x.dtype)
    return found.t()


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
