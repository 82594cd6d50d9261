"""The adapted linear layer computes what PEFT's does, and leaves alone what it cannot."""

import copy
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


def adapted(dtype: torch.dtype = torch.float64, **settings: Any) -> PeftModel:
    torch.manual_seed(0)
    config = LoraConfig(r=3, target_modules=["first", "second"], init_lora_weights=False, **settings)
    model = get_peft_model(Base().to(dtype), config)
    for parameter in model.parameters():
        if parameter.requires_grad and dtype == torch.bfloat16:
            parameter.data = parameter.data.float()
    return model


def outcome(model: PeftModel, x: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.clone().requires_grad_()
    output = model(x)
    output.sin().sum().backward()
    return {
        "output": output.detach(),
        "input": x.grad,
        **{n: p.grad for n, p in model.named_parameters() if p.requires_grad},
    }


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"lora_alpha": 1}])
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


def test_a_16_bit_base_keeps_its_format_and_the_adapter_its_own() -> None:
    model = adapted(torch.bfloat16)
    exact = adapted().float()
    exact.load_state_dict(model.state_dict())
    use_lora_linear(model)
    x = torch.randn(200, 24)
    found, expected = outcome(model, x.bfloat16()), outcome(exact, x.bfloat16().float())
    assert found["output"].dtype == torch.bfloat16
    for name in expected:
        assert found[name].dtype == (torch.float32 if "lora" in name else torch.bfloat16), name
        assert (found[name] - expected[name]).norm() <= 0.02 * expected[name].norm(), name


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_dropout": 0.1}, {"lora_bias": True}])
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


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    model = adapted()
    use_lora_linear(model)
    x = torch.randn(5, 24, dtype=torch.float64)
    model(x).sum().backward()
    assert x.grad is None
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
