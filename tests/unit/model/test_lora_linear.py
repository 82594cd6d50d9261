"""The adapted linear layer computes what PEFT's does, and leaves alone what it cannot."""

import copy
from contextlib import nullcontext
from itertools import combinations
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners import lora
from torch import nn

from trainer.model.lora_linear import LoraLinear, use_lora_linear


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 40), nn.Linear(40, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def quantised(linear: nn.Linear, bits: int) -> nn.Linear:
    import bitsandbytes

    shape = (linear.in_features, linear.out_features, linear.bias is not None)
    if bits == 4:
        found = bitsandbytes.nn.Linear4bit(*shape, compute_dtype=linear.weight.dtype, quant_type="nf4")
        found.support_avx512bf16_for_cpu = False  # as load_model does
    else:
        found = bitsandbytes.nn.Linear8bitLt(*shape, has_fp16_weights=False)
    found.load_state_dict(linear.state_dict())
    return found.to("cpu")


def adapted(dtype: torch.dtype = torch.float64, bits: int | None = None, **settings: Any) -> PeftModel:
    torch.manual_seed(0)
    config = LoraConfig(r=3, target_modules=["first", "second"], init_lora_weights=False, **settings)
    base = Base().to(dtype)
    if bits is not None:
        base.first, base.second = quantised(base.first, bits), quantised(base.second, bits)
        setattr(base, f"is_loaded_in_{bits}bit", True)  # PEFT asks the model
    model = get_peft_model(base, config)
    for parameter in model.parameters():
        if parameter.requires_grad and dtype == torch.bfloat16:
            parameter.data = parameter.data.float()
    return model


def outcome(model: PeftModel, x: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)  # for dropout
    x = x.clone().requires_grad_()
    output = model(x)
    output.sin().sum().backward()
    return {
        "output": output.detach(),
        "input": x.grad,
        **{n: p.grad for n, p in model.named_parameters() if p.requires_grad},
    }


KINDS = [{}, {"use_rslora": True}, {"lora_alpha": 1}, {"lora_dropout": 0.3}, {"use_dora": True}]


@pytest.mark.parametrize("settings", KINDS)
def test_output_and_every_gradient_are_those_of_peft(settings: dict[str, Any]) -> None:
    theirs = adapted(**settings)
    mine = copy.deepcopy(theirs)
    use_lora_linear(mine)
    x = torch.randn(2, 5, 24, dtype=torch.float64)
    found, expected = outcome(mine, x), outcome(theirs, x)
    assert sum(isinstance(module, LoraLinear) for module in mine.modules()) == 2
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.allclose(found[name], expected[name], rtol=1e-12, atol=1e-12), name


@pytest.mark.parametrize("settings", [{}, {"lora_dropout": 0.3}])
@pytest.mark.parametrize("bits", [4, 8])
def test_on_a_quantised_base_too(bits: int, settings: dict[str, Any]) -> None:
    theirs, mine = (adapted(torch.float32, bits=bits, **settings) for _ in range(2))
    use_lora_linear(mine)
    x = torch.randn(2, 5, 24)
    found, expected = outcome(mine, x), outcome(theirs, x)
    assert sum(isinstance(module, LoraLinear) for module in mine.modules()) == 2
    assert found.keys() == expected.keys()
    for name in expected:
        assert (found[name] - expected[name]).norm() <= 1e-5 * expected[name].norm(), name


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}])
def test_a_16_bit_base_keeps_its_format_and_the_adapter_its_own(settings: dict[str, Any]) -> None:
    model = adapted(torch.bfloat16, **settings)
    exact = adapted(**settings).float()
    exact.load_state_dict(model.state_dict())
    use_lora_linear(model)
    x = torch.randn(200, 24)
    found, expected = outcome(model, x.bfloat16()), outcome(exact, x.bfloat16().float())
    assert found["output"].dtype == torch.bfloat16
    for name in expected:
        assert found[name].dtype == (torch.float32 if "lora" in name else torch.bfloat16), name
        assert (found[name] - expected[name]).norm() <= 0.02 * expected[name].norm(), name


def young(bits: int | None) -> tuple[PeftModel, torch.Tensor]:
    """A layer in bfloat16 whose adapter changes its output by a fifth of the last bit, and an input."""
    torch.manual_seed(2)
    base = nn.Sequential(nn.Linear(256, 256))
    base.to(torch.bfloat16)
    if bits is not None:
        base[0] = quantised(base[0], bits)
        base.is_loaded_in_4bit = True
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["0"], init_lora_weights=False))
    for name, parameter in model.named_parameters():
        if "lora" in name:
            parameter.data = parameter.data.float() * (1e-3 if "lora_B" in name else 1.0)
    return model, torch.randn(512, 256).bfloat16()


def kept(model: PeftModel, x: torch.Tensor) -> float:
    """The share of the adapter's change that the output has: 1 if rounding only adds noise."""
    layer = model.get_base_model()[0]
    a, b = (getattr(layer, f"lora_{name}")["default"].weight for name in "AB")
    change = (x.float() @ a.t() @ b.t() * layer.scaling["default"]).flatten()
    tuned = model(x)
    with model.disable_adapter():
        found = (tuned.float() - model(x).float()).flatten()
    return float((found @ change / (change @ change)).detach())


@pytest.mark.parametrize("bits", [None, 4])
def test_in_16_bits_a_small_change_is_rounded_and_not_lost(bits: int | None) -> None:
    model, x = young(bits)
    assert kept(model, x) < 0.6, "what adding to a rounded output keeps"
    use_lora_linear(model)
    assert kept(model, x) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("bits", [None, 4])
def test_nor_is_its_share_of_the_gradient(bits: int | None) -> None:
    model, x = young(bits)
    layer = model.get_base_model()[0]
    a, b = (getattr(layer, f"lora_{name}")["default"].weight.detach() for name in "AB")
    gradient = torch.randn(512, 256).bfloat16()
    expected = (gradient.float() @ b @ a * layer.scaling["default"]).flatten()

    def share() -> float:
        found = []
        for adapter in (True, False):
            leaf = x.clone().requires_grad_()
            with nullcontext() if adapter else model.disable_adapter():
                model(leaf).backward(gradient)
            found.append(leaf.grad.float().flatten())
        return float((found[0] - found[1]) @ expected / (expected @ expected))

    use_lora_linear(model)
    assert share() == pytest.approx(1, abs=0.1)


def test_a_model_that_answers_holds_base_and_adapter_side_by_side() -> None:
    model, x = young(None)
    trained = copy.deepcopy(model)
    use_lora_linear(trained)
    use_lora_linear(model, answers=True)
    model.eval()
    layer = model.get_base_model()[0]
    weight = layer.base_layer.weight.detach().clone()
    with torch.no_grad():
        assert kept(model, x) == pytest.approx(1, abs=0.1)
        assert (model(x).float() - trained(x).float()).abs().mean() < 1e-3
        assert torch.equal(layer.base_layer.weight, weight)
        where = layer.base_layer.weight.data_ptr()
        layer.lora_B["default"].weight.mul_(-3)  # as another adapter that is put on
        assert kept(model, x) == pytest.approx(1, abs=0.1)
        assert layer.base_layer.weight.data_ptr() == where


def test_adapters_of_other_ranks_and_layers_share_a_base_and_compute_as_alone() -> None:
    """In 16 bits, in which base and active adapter stand side by side."""
    both, x = adapted(torch.bfloat16).eval(), torch.randn(5, 24, dtype=torch.bfloat16)
    for name, rank, layers in (("tall", 19, ["first", "second"]), ("narrow", 2, ["second"]), ("twin", 3, ["first"])):
        both.add_adapter(name, LoraConfig(r=rank, target_modules=layers, init_lora_weights=False))
    names = ["default", "tall", "narrow", "twin"]  # the last is scaled like the first
    expected = {}
    for name in names:
        alone = copy.deepcopy(both)
        for other in set(names) - {name}:
            alone.delete_adapter(other)
        alone.set_adapter(name)
        use_lora_linear(alone, answers=True)
        with torch.no_grad():
            expected[name] = alone(x).float()
    use_lora_linear(both, answers=True)
    for name in (*names, *reversed(names), "default", "twin", "default", "tall", "default", "narrow"):
        both.set_adapter(name)
        with torch.no_grad():
            torch.testing.assert_close(both(x).float(), expected[name], rtol=0.02, atol=0.02)
    assert all(not one.allclose(other, atol=0.1) for one, other in combinations(expected.values(), 2))


@pytest.mark.parametrize("settings", [{"use_dora": True, "lora_dropout": 0.1}, {"lora_bias": True}])
def test_other_kinds_stay_with_peft(settings: dict[str, Any]) -> None:
    model = adapted(**settings)
    use_lora_linear(model)
    assert {type(module) for module in model.modules() if isinstance(module, lora.Linear)} == {lora.Linear}


def test_the_adapter_can_be_switched_off_and_saved_as_before() -> None:
    model = adapted()
    names = get_peft_model_state_dict(model).keys()
    x = torch.randn(5, 24, dtype=torch.float64)
    use_lora_linear(model)
    with model.disable_adapter():
        switched_off = model(x)
    assert torch.equal(switched_off, _base_output(model, x))
    assert get_peft_model_state_dict(model).keys() == names


def _base_output(model: PeftModel, x: torch.Tensor) -> torch.Tensor:
    base = model.get_base_model()
    return base.second.base_layer(torch.tanh(base.first.base_layer(x)))


@pytest.mark.parametrize("settings", KINDS)
def test_a_model_may_add_to_the_output_in_place(settings: dict[str, Any]) -> None:
    model = adapted(**settings)
    use_lora_linear(model)
    output = model.get_base_model().first(torch.randn(2, 5, 24, dtype=torch.float64))
    output += 1
    output.sum().backward()


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    model = adapted()
    use_lora_linear(model)
    x = torch.randn(5, 24, dtype=torch.float64)
    model(x).sum().backward()
    assert x.grad is None
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
