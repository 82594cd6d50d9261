"""Rounding the sum of a base's weight and a small change to 16 bits."""

from pathlib import Path

import pytest
import torch

from trainer.config.schema import LoraSettings, ModelConfig
from trainer.model.adapter import add_adapter
from trainer.model.base import find_base
from trainer.model.loading import load_model
from trainer.model.merging import merged_model, rounded

FORMATS = [torch.bfloat16, torch.float16]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_change_that_is_less_than_half_a_step_is_kept_on_average(
    dtype: torch.dtype, generator: torch.Generator
) -> None:
    step = torch.finfo(dtype).eps
    weights = torch.full((100_000,), 1 + step / 10)
    assert (weights.to(dtype).float() == 1).all()  # rounding to the nearest forgets it
    found = rounded(weights, dtype, generator).float()
    assert set(found.tolist()) == {1.0, 1 + step}
    assert float(found.mean() - 1) == pytest.approx(step / 10, rel=0.1)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("sign", [1, -1])
def test_every_number_goes_to_one_of_its_two_neighbors(
    dtype: torch.dtype, sign: int, generator: torch.Generator
) -> None:
    exact = sign * torch.logspace(-6, 3, 10_000)
    found = rounded(exact, dtype, generator)
    nearest = exact.to(dtype)
    other = torch.nextafter(nearest, torch.where(exact > nearest.float(), torch.inf, -torch.inf).to(dtype))
    assert ((found == nearest) | (found == other)).all()
    assert (found == other).any()


@pytest.mark.parametrize("dtype", FORMATS)
def test_what_is_a_number_of_the_format_already_stays(dtype: torch.dtype, generator: torch.Generator) -> None:
    kept = torch.tensor([0.0, -0.0, 1.0, -3.5, 2.0**-14, 2.0**-20, torch.finfo(dtype).max, torch.inf, -torch.inf])
    assert rounded(kept, dtype, generator).float().tolist() == kept.tolist()


def test_float32_is_left_as_it_is(generator: torch.Generator) -> None:
    exact = torch.randn(1000)
    assert torch.equal(rounded(exact, torch.float32, generator), exact)


def test_what_is_not_a_number_stays_so_and_is_found_later(generator: torch.Generator) -> None:
    assert rounded(torch.tensor([torch.nan]), torch.bfloat16, generator).isnan().all()


def test_the_same_seed_rounds_the_same_way() -> None:
    exact = torch.randn(1000)
    first, second = (rounded(exact, torch.bfloat16, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)


def test_changes_of_less_than_half_a_step_survive_the_merge(tmp_path: Path) -> None:
    settings, cpu, layer = ModelConfig(base="builtin:tiny"), torch.device("cpu"), "model.layers.0.mlp.up_proj"
    base = find_base(settings)
    before = load_model(base, settings, cpu, torch.bfloat16).get_submodule(layer).weight.detach().float()
    adapted = add_adapter(load_model(base, settings, cpu, torch.float32), LoraSettings(r=4))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=3e-5)
    change = adapted.base_model.get_submodule(f"model.{layer}").get_delta_weight("default").detach()
    adapted.save_pretrained(tmp_path)
    merged = merged_model(base, settings, tmp_path, torch.bfloat16).get_submodule(layer).weight.detach()
    assert merged.dtype == torch.bfloat16

    def kept(weight: torch.Tensor) -> float:
        return float(((weight.float() - before) * change).sum() / (change * change).sum())

    assert kept((before + change).bfloat16()) < 0.5  # what rounding to the nearest leaves of it
    assert kept(merged) == pytest.approx(1, abs=0.2)
