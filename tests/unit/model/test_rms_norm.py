"""Our RMSNorm is the model's: the same numbers and the same gradient, where it takes the place of the model's own."""

import copy

import pytest
import torch
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNormGated

from trainer.model.rms_norm import LeanNorm, has_lean_norms, use_lean_norms

WIDTH = 48


def frozen(norm: torch.nn.Module, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    torch.manual_seed(1)
    for weight in norm.parameters():
        torch.nn.init.normal_(weight, mean=1.0, std=0.3)
    return norm.to(dtype).requires_grad_(False)


@pytest.mark.parametrize(
    ("kind", "dtype", "rounding"),
    [(LlamaRMSNorm, torch.float32, 1e-5), (LlamaRMSNorm, torch.bfloat16, 2e-3), (Olmo2RMSNorm, torch.float32, 1e-5)],
)
def test_numbers_and_gradient_are_those_of_the_models_own(
    kind: type[torch.nn.Module], dtype: torch.dtype, rounding: float
) -> None:
    theirs = frozen(kind(WIDTH), dtype)
    ours = copy.deepcopy(theirs)
    use_lean_norms(ours)  # type: ignore[arg-type]  # a module alone
    assert isinstance(ours, LeanNorm)
    hidden = (torch.randn(2, 7, WIDTH) * 3).to(dtype).requires_grad_()
    weight = torch.randn(2, 7, WIDTH).to(dtype)
    found, expected = ours(hidden), theirs(hidden)
    assert (found - expected).norm() <= rounding * expected.norm()
    (mine,) = torch.autograd.grad(found, hidden, weight)
    (other,) = torch.autograd.grad(expected, hidden, weight)
    assert (mine - other).norm() <= rounding * other.norm()


def test_it_keeps_its_input_and_one_number_a_token() -> None:
    kept: list[tuple[int, ...]] = []
    norm = frozen(LlamaRMSNorm(WIDTH), torch.bfloat16)
    use_lean_norms(norm)  # type: ignore[arg-type]
    hidden = torch.randn(1, 7, WIDTH).bfloat16().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tuple(tensor.shape)), lambda _: None):
        norm(hidden)
    assert sorted(kept) == sorted([(1, 7, WIDTH), (1, 7, 1), (WIDTH,)])


@pytest.mark.parametrize("norm", [GemmaRMSNorm(WIDTH), Qwen3NextRMSNormGated(WIDTH), torch.nn.RMSNorm(WIDTH)])
def test_a_norm_that_computes_something_else_stays_the_models_own(norm: torch.nn.Module) -> None:
    use_lean_norms(frozen(norm))  # type: ignore[arg-type]
    assert not isinstance(norm, LeanNorm)


def test_a_norm_that_rounds_elsewhere_stays_the_models_own() -> None:
    norm = frozen(Olmo2RMSNorm(WIDTH), torch.bfloat16)  # multiplies by its weights first
    use_lean_norms(norm)  # type: ignore[arg-type]
    assert not isinstance(norm, LeanNorm)


def test_a_norm_that_is_trained_stays_the_models_own() -> None:
    norm = LlamaRMSNorm(WIDTH)
    use_lean_norms(norm)
    assert not isinstance(norm, LeanNorm)
    assert has_lean_norms(norm)
