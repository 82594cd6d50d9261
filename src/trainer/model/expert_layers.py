"""The experts of a mixture, computed with an adapter that is never added to their weights, and from quantized ones.

PEFT adds an adapter to the weights of all experts at each pass; the backward pass keeps that sum for each layer, and
forms a gradient as large. Here an expert computes as an adapted linear layer does (`lora_linear`): base and adapter are
one product, what is kept is its input and the r-dimensional image, and a quantized weight is restored for it alone.

transformers calls `experts_forward` as an implementation of experts, beside its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn

from trainer.model.experts import is_packable, stacks
from trainer.model.lora_linear import sum_of_products
from trainer.model.nf4 import is_packed, unpacked

if TYPE_CHECKING:
    from peft import PeftModel

NAME = "one_by_one"
ALIGNED = 8  # numbers of 16 bits in the 16 bytes that a product of groups asks of a row


class Factors(NamedTuple):
    """The adapter of all experts of a layer: A [experts, r, in] and B [experts, out, r]."""

    a: Tensor
    b: Tensor
    scaling: float


def experts_forward(
    module: Any,
    hidden_states: Tensor,
    top_k_index: Tensor,
    top_k_weights: Tensor,
    adapters: Mapping[str, Factors] | None = None,
) -> Tensor:
    """The outputs of each token's experts, weighted and summed [tokens, hidden].

    top_k_index, top_k_weights: [tokens, k]. `adapters`: by the names of the module's parameters.
    """
    num_tokens, k = top_k_index.shape
    chosen, order = top_k_index.reshape(-1).sort(stable=True)  # rows of one expert beside each other
    groups = _groups(chosen, module.num_experts)

    def product(name: str, rows: Tensor) -> Tensor:
        found = _product(rows, groups, getattr(module, name), module.is_transposed, (adapters or {}).get(name))
        return found + getattr(module, f"{name}_bias")[chosen] if module.has_bias else found

    rows = hidden_states[order // k]
    rows = (
        module._apply_gate(product("gate_up_proj", rows))
        if module.has_gate
        else module.act_fn(product("up_proj", rows))
    )
    rows = product("down_proj", rows)
    if module.has_post_expert_norm:
        rows = module.post_expert_norm(rows)
    rows = rows * top_k_weights.reshape(-1)[order, None]
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return rows[back].view(num_tokens, k, -1).sum(1).to(hidden_states.dtype)


def use_expert_layers(model: nn.Module) -> None:
    """Let transformers compute the experts of this model here, where it lets itself be told."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(NAME, experts_forward)
    for stack in stacks(model):
        if is_packable(stack.module):
            stack.module.config._experts_implementation = NAME


class LoraExperts:
    """PEFT's adapter of one parameter, or of several around each other, with another forward pass; same weights."""

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        found: Tensor
        if self.disable_adapters or self.merged:
            found = super().forward(x, *args, **kwargs)  # type: ignore[misc]  # PEFT's
        else:
            found = self.get_base_layer()(x, *args, adapters=dict(_factors(self)), **kwargs)
        return found


def use_lora_experts(model: "PeftModel") -> None:
    """Let adapters of experts compute here; those of other parameters, and of experts that cannot, stay PEFT's."""
    found = [module for module in model.modules() if type(module) is ParamWrapper]
    wrappers = [module for module in found if is_packable(module.get_base_layer())]
    if wrappers:
        use_expert_layers(model)
    for wrapper in wrappers:
        wrapper.__class__ = _faster()


@cache
def _faster() -> Any:
    return type(ParamWrapper.__name__, (LoraExperts, ParamWrapper), {})


def _factors(wrapper: Any) -> "Any":
    while isinstance(wrapper, ParamWrapper):
        (name,) = wrapper.active_adapters
        a, b = wrapper.lora_A[name].weight, wrapper.lora_B[name].weight
        experts = wrapper.num_experts
        yield (
            wrapper.parameter_name,
            Factors(
                a.view(experts, -1, a.shape[1]), b.view(len(b), -1, experts).permute(2, 0, 1), wrapper.scaling[name]
            ),
        )
        wrapper = wrapper.base_layer


@dataclass(frozen=True, slots=True)
class Matrices:
    """A matrix of each expert, to be multiplied by from the right, in the format of the rows."""

    weight: Tensor  # [experts, .., ..], or packed
    is_turned: bool  # multiplied by as it lies, or turned
    dtype: torch.dtype

    def of(self, expert: int) -> Tensor:
        """The matrix [in, out] of one."""
        whole = unpacked(self.weight, expert, 1)[0] if is_packed(self.weight) else self.weight[expert]
        return self._laid(whole)

    def all(self) -> Tensor:
        """Those of all [experts, in, out]."""
        return self._laid(unpacked(self.weight) if is_packed(self.weight) else self.weight)

    def turned(self) -> "Matrices":
        return replace(self, is_turned=not self.is_turned)

    def _laid(self, whole: Tensor) -> Tensor:
        whole = whole.to(self.dtype)
        return whole.transpose(-2, -1) if self.is_turned else whole


class _Apart:
    """Rows of each expert, one expert after the other: on a CPU, and for fewer rows than experts."""

    padding = 1

    def __init__(self, counts: Tensor) -> None:
        ends = counts.cumsum(0).tolist()
        starts = [0, *ends[:-1]]
        self.parts = [
            (e, slice(start, end)) for e, (start, end) in enumerate(zip(starts, ends, strict=True)) if end > start
        ]
        self.num_experts = len(ends)

    def sums(self, rows: Tensor, matrices: Matrices, low: tuple[Tensor, Tensor] | None) -> Tensor:
        """Rows of each expert times its matrix; with `low` plus rows [S, r] times matrices [experts, r, out]."""
        found = [
            rows[part] @ matrices.of(e)
            if low is None
            else sum_of_products(rows[part], matrices.of(e), low[0][part], low[1][e], None)
            for e, part in self.parts
        ]
        return torch.cat(found)

    def products(self, rows: Tensor, factors: Tensor) -> Tensor:
        """Rows of each expert times its matrix of [experts, in, out]."""
        return torch.cat([rows[part] @ factors[e] for e, part in self.parts])

    def outer(self, left: Tensor, right: Tensor) -> Tensor:
        """The sum over the rows of each expert of left [S, m] by right [S, n]: [experts, m, n]."""
        found = left.new_zeros(self.num_experts, left.shape[1], right.shape[1])
        for e, part in self.parts:
            found[e] = left[part].t() @ right[part]
        return found


class _Together:
    """The same in one product for all experts, which reads nothing back from the device."""

    padding = ALIGNED

    def __init__(self, counts: Tensor) -> None:
        self.ends = counts.cumsum(0).int()

    def sums(self, rows: Tensor, matrices: Matrices, low: tuple[Tensor, Tensor] | None) -> Tensor:
        if low is None:
            return self.products(rows, matrices.all())
        return self.products(torch.cat([rows, low[0]], 1), torch.cat([matrices.all(), low[1]], 1))

    def products(self, rows: Tensor, factors: Tensor) -> Tensor:
        return nn.functional.grouped_mm(rows, factors, offs=self.ends)

    def outer(self, left: Tensor, right: Tensor) -> Tensor:
        return nn.functional.grouped_mm(left.t(), right, offs=self.ends)


def _groups(chosen: Tensor, num_experts: int) -> "_Apart | _Together":
    counts = chosen.new_zeros(num_experts).index_add_(0, chosen, torch.ones_like(chosen))
    return _Apart(counts) if chosen.device.type == "cpu" or len(chosen) < num_experts else _Together(counts)


def _product(
    rows: Tensor, groups: "_Apart | _Together", weight: Tensor, is_transposed: bool, adapter: Factors | None
) -> Tensor:
    """Rows of each expert times its matrix, with the adapter's; padded so that a kernel takes its rank."""
    matrices = Matrices(weight, not is_transposed, rows.dtype)
    if adapter is None:
        return _ExpertProduct.apply(rows, weight, None, None, 1.0, groups, matrices)  # type: ignore[no-untyped-call, no-any-return]
    missing = -adapter.a.shape[1] % groups.padding
    a, b = nn.functional.pad(adapter.a, (0, 0, 0, missing)), nn.functional.pad(adapter.b, (0, missing))
    return _ExpertProduct.apply(rows, weight, a, b, adapter.scaling, groups, matrices)  # type: ignore[no-untyped-call, no-any-return]


class _ExpertProduct(torch.autograd.Function):
    """x W_e + scaling * (x A_e^T) B_e^T for the rows of each expert e, whose weights are frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        a: Tensor | None,
        b: Tensor | None,
        scaling: float,
        groups: Any,
        matrices: Matrices,
    ) -> Tensor:
        image, low = None, None
        if a is not None and b is not None:
            image = groups.products(x, a.to(x.dtype).transpose(-2, -1))  # [S, r]
            low = image, (b * scaling).to(x.dtype).transpose(-2, -1)
        # A sharded weight is whole again in the backward pass if autograd keeps it; a packed one keeps its own scales.
        ctx.save_for_backward(x, a, b, image, None if is_packed(weight) else weight)
        ctx.scaling, ctx.groups, ctx.packed = scaling, groups, matrices if is_packed(weight) else None
        ctx.is_turned = matrices.is_turned
        found: Tensor = groups.sums(x, matrices, low)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, a, b, image, weight = ctx.saved_tensors
        gradient, groups = gradients[0].contiguous(), ctx.groups
        a_gradient = b_gradient = low = None
        if a is not None:
            pulled = groups.products(gradient, (b * ctx.scaling).to(x.dtype))  # [S, r]
            a_gradient = groups.outer(pulled, x).to(a.dtype)
            b_gradient = groups.outer(gradient, image).to(b.dtype) * ctx.scaling
            low = pulled, a.to(x.dtype)
        if not ctx.needs_input_grad[0]:
            return None, None, a_gradient, b_gradient, None, None, None
        matrices = ctx.packed or Matrices(weight, ctx.is_turned, x.dtype)
        return groups.sums(gradient, matrices.turned(), low), None, a_gradient, b_gradient, None, None, None
