"""Control tokens that a base has never learned are found by their rows."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.unit.model.conftest import SHAPE
from trainer.model.unlearned import unlearned


def model() -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(vocab_size=64, **SHAPE))


def test_learned_rows_are_silent() -> None:
    assert unlearned(model(), {1, 2}, {1, 2, 3}) == {}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (torch.zeros(16), "is zero, or nearly"),
        (torch.full((16,), 1e-9), "is zero, or nearly"),
        (torch.full((16,), torch.nan), "holds values that are no numbers"),
    ],
)
def test_a_row_that_says_nothing(row: torch.Tensor, reason: str) -> None:
    found = model()
    with torch.no_grad():
        found.model.embed_tokens.weight[2] = row
        found.lm_head.weight[3] = row
        found.lm_head.weight[5] = row
    assert unlearned(found, {1, 2, 3}, {1, 2, 3, 5}) == {
        2: f"its row in the embedding {reason}", 3: f"its row in the output head {reason}",
    }  # fmt: skip


def test_a_copy_of_another_control_token() -> None:
    found = model()
    with torch.no_grad():
        found.model.embed_tokens.weight[2] = found.model.embed_tokens.weight[7]
    assert unlearned(found, {1, 2}, {1, 2, 7}) == {2: "its row in the embedding is a copy of another token's"}
