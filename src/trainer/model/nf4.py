"""NF4 for the experts of a mixture, which bitsandbytes leaves alone: it quantizes linear layers only.

Each expert's matrix is quantized by itself, by bitsandbytes, and dequantized by it to the same numbers. All of a layer
lie in one parameter, so that any run of them is restored by one kernel. The scales of the blocks stay in float32: 4.5
bits a weight where bitsandbytes' second quantization has 4.13, since the offset of that differs for each expert.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from trainer.model.experts import BLOCK, Stack, can_be_packed, routers, stacks

METHOD = "bitsandbytes_4bit"  # transformers' name of what quantizes while weights are loaded


def is_packed(weight: Any) -> bool:
    """True for quantized weights of experts."""
    return getattr(weight, "quant_state", None) is not None


def pack(weight: Tensor) -> nn.Parameter:
    """The experts' weights [experts, .., ..], each expert quantized by itself."""
    from bitsandbytes.functional import QuantState, dequantize_blockwise, quantize_4bit
    from bitsandbytes.nn import Params4bit

    parts, scales = [], []
    for expert in weight:
        packed, state = quantize_4bit(expert.contiguous(), blocksize=BLOCK, compress_statistics=True, quant_type="nf4")
        parts.append(packed)
        scales.append(dequantize_blockwise(state.absmax, state.state2).float() + state.offset)
    state = QuantState(torch.cat(scales), weight.shape, state.code, BLOCK, "nf4", weight.dtype)
    found: nn.Parameter = Params4bit(torch.cat(parts), quant_state=state, quant_type="nf4", bnb_quantized=True)
    found.ds_shape = weight.shape  # type: ignore[attr-defined]  # where PEFT looks for the shape of what is not whole
    return found


def unpacked(weight: Any, first: int = 0, number: int | None = None) -> Tensor:
    """The weights of `number` experts from `first` on, of all by default, in the format that was quantized."""
    from bitsandbytes.functional import QuantState, dequantize_4bit

    state = weight.quant_state
    experts, *shape = state.shape
    number = experts if number is None else number
    start, end = (expert * prod(shape) for expert in (first, first + number))
    scales = state.absmax[start // BLOCK : end // BLOCK]
    # A row for each block: on a CPU bitsandbytes (0.50) restores rows wrongly in which a block begins or ends.
    flat = torch.Size((len(scales), BLOCK))
    part = QuantState(scales, flat, state.code, BLOCK, "nf4", state.dtype)
    found: Tensor = dequantize_4bit(weight.data[start // 2 : end // 2], part)
    return found.view(number, *shape)


@contextmanager
def packs_experts() -> Iterator[None]:
    """Meanwhile, loading with bitsandbytes' NF4 packs experts, and quantizes no router."""
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    before = AUTO_QUANTIZER_MAPPING[METHOD]
    AUTO_QUANTIZER_MAPPING[METHOD] = _quantizer()
    try:
        yield
    finally:
        AUTO_QUANTIZER_MAPPING[METHOD] = before


@cache
def _quantizer() -> Any:
    from transformers.integrations.bitsandbytes import Bnb4bitQuantize
    from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

    class Packs(Bnb4bitQuantize):  # type: ignore[misc]
        """Quantize a weight as it comes from the files, layer by layer."""

        def convert(self, input_dict: dict[str, Any], model: Any = None, **kwargs: Any) -> dict[str, Any]:
            packed = {}
            for name, value in list(input_dict.items()):
                if _is_stack(model, name):
                    packed[name] = pack(value[0] if isinstance(value, list) else value)
                    del input_dict[name]
            return packed | (super().convert(input_dict, model=model, **kwargs) if input_dict else {})

    class PacksExperts(Bnb4BitHfQuantizer):  # type: ignore[misc]
        def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
            return _is_stack(model, param_name) or super().param_needs_quantization(model, param_name, **kwargs)

        def get_quantize_ops(self) -> Any:
            return Packs(self)

        def get_modules_to_not_convert(self, model: Any, *args: Any, **kwargs: Any) -> list[str]:
            return [*super().get_modules_to_not_convert(model, *args, **kwargs), *routers(model)]

        def _dequantize(self, model: Any, dtype: Any = None) -> Any:
            unpack_experts(model, dtype)
            return super()._dequantize(model, dtype=dtype)

    return PacksExperts


def _is_stack(model: nn.Module, name: str) -> bool:
    place, _, parameter = name.rpartition(".")
    module = model.get_submodule(place)
    weight = module._parameters.get(parameter)
    return weight is not None and weight.ndim == 3 and can_be_packed(Stack(name, module, parameter))


def unpack_experts(model: nn.Module, dtype: torch.dtype) -> None:
    """Hold the weights of all experts in `dtype` again."""
    for stack in list(stacks(model)):
        if is_packed(stack.weight):
            whole = unpacked(stack.weight).to(dtype)
            setattr(stack.module, stack.parameter, nn.Parameter(whole, requires_grad=False))
