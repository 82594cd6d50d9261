"""Rounding the sum of a base's weight and a small change to 16 bits."""

import pytest
import torch

from trainer.model.merging import rounded

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
