"""The memory that is planned is the memory that a pack keeps for its backward pass."""

from collections.abc import Callable

import pytest
import torch

from trainer.config import RunConfig
from trainer.data.rendering import Example
from trainer.model.adapter import add_adapter
from trainer.model.base import find_base, load_model
from trainer.training.engine import Engine
from trainer.training.memory import activation_bytes, estimate


@pytest.mark.parametrize("changes", [{}, {"lora__lora_dropout": 0.1}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [120, 700])
def test_a_token_keeps_what_is_estimated(
    settings: Callable[..., RunConfig], dtype: torch.dtype, length: int, changes: dict[str, float]
) -> None:
    config = settings(**changes)
    base = find_base(config.model)
    model = add_adapter(load_model(base, config.model, torch.device("cpu"), dtype), config.lora)
    engine = Engine(model, torch.device("cpu"))
    row = Example(tuple(range(length)), (-100,) * (length - 1) + (1,))
    (pack,) = engine.packs([row], 10_000)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        nll = engine.sums(pack).nll
    found = (sum(kept.values()) + probabilities_bytes(nll)) / len(pack.input_ids)
    assert found == pytest.approx(activation_bytes(base, config, dtype, length), rel=0.2)


def probabilities_bytes(nll: torch.Tensor) -> int:
    """Attention keeps its probabilities on the graph itself, where hooks do not see them."""
    total, todo, seen = 0, [nll.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        total += sum(part.untyped_storage().nbytes() for part in getattr(node, "kept", []) if part is not None)
        todo += [parent for parent, _ in node.next_functions]
    return total


def test_the_budget_is_what_fits_but_never_less_than_the_longest_row(settings: Callable[..., RunConfig]) -> None:
    config = settings()
    base, cpu = find_base(config.model), torch.device("cpu")
    large, small = (estimate(config, base, torch.float32, cpu, free, 100) for free in (2**36, 2**29))
    assert large.token_budget == 4096
    assert small.token_budget == 100
    assert large.peak_bytes > large.weights_bytes + large.adapter_bytes + 4096 * large.bytes_per_token
    assert large.problem(100) is None
    assert "data.max_length: the longest row (5,000 tokens) needs about" in str(small.problem(5000))
