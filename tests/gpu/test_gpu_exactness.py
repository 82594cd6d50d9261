"""On a GPU too, a step's loss and gradient are those of one conversation at a time."""

import pytest
import torch
from torch._dynamo.utils import counters

from tests.gpu.steps import alone, build, packed, rows
from trainer.model.tree_attention import Kind
from trainer.training.engine import Engine

BUDGETS = (100, 700, 10_000)  # packs of one block and less, some packs, one pack


@pytest.mark.parametrize("head_dim", [32, 80, 128])
def test_in_float32(device: torch.device, has_flex: bool, head_dim: int) -> None:
    model = build(device, torch.float32, head_dim=head_dim)
    expected = alone(model, rows())
    engine = Engine(model, device)
    assert engine.kind == ("flex" if has_flex else "dense")
    assert engine.notes == []
    for token_budget in BUDGETS:
        found = packed(model, engine, rows(), token_budget)
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        assert found.distance(expected) < 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("quantized", [False, True])
def test_16_bits_round_no_more_than_one_conversation_at_a_time(
    device: torch.device, dtype: torch.dtype, quantized: bool
) -> None:
    if dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bfloat16")
    exact = alone(build(device, torch.float32, quantized), rows())
    model = build(device, dtype, quantized)
    expected = alone(model, rows())
    engine = Engine(model, device)
    assert engine.notes == []
    for token_budget in BUDGETS:
        found = packed(model, engine, rows(), token_budget)
        assert found.loss == pytest.approx(expected.loss, rel=5e-3)
        assert found.distance(exact) < 1.5 * expected.distance(exact) + 2e-3


@pytest.mark.parametrize("kind", ["dense", "flex"])
@pytest.mark.parametrize("recomputed", [0, 2])
def test_by_each_kind_of_attention(device: torch.device, has_flex: bool, kind: Kind, recomputed: int) -> None:
    if kind == "flex" and not has_flex:
        pytest.skip("before Ampere")
    model = build(device, torch.float32)
    expected = alone(model, rows())
    engine = Engine(model, device, kind=kind)
    model.train()
    engine.recompute(recomputed)
    assert packed(model, engine, rows(), 10_000).distance(expected) < 1e-3


def test_packs_of_many_lengths_are_compiled_for_once(device: torch.device, has_flex: bool) -> None:
    """Training, and evaluation between the steps; torch gives up after eight compilations."""
    if not has_flex:
        pytest.skip("before Ampere")
    model = build(device, torch.float32)
    engine = Engine(model, device)
    packed(model, engine, rows(), 10_000)
    with torch.no_grad():
        engine.sums(engine.packs(rows(), 10_000)[0])
    before = counters["stats"]["unique_graphs"]
    for seed in range(12):
        (pack,) = engine.packs(rows(seed, prompt=150 + 37 * seed), 100_000)
        model.train()
        engine.sums(pack).nll.backward()
        model.eval()
        with torch.no_grad():
            engine.sums(pack)
    assert counters["stats"]["unique_graphs"] == before
