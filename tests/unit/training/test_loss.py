"""Our output head is the model's: the same logits, loss and gradient, a chunk at a time."""

import pytest
import torch
from torch.nn import functional

from trainer.training import loss
from trainer.training.loss import Head, head_scores, logit_scores

HEADS = [
    {},
    {"bias": True},
    {"scale": 0.25},
    {"softcap": 1.5},
    {"scale": 3.0, "softcap": 0.7, "bias": True},
]


def make(
    dtype: torch.dtype, bias: bool = False, **values: float
) -> tuple[Head, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    rows, hidden, vocab = 75, 12, 41
    weight = torch.randn(vocab, hidden, dtype=dtype)
    head = Head(weight, torch.randn(vocab, dtype=dtype) if bias else None, **values)
    states = torch.randn(rows, hidden, dtype=dtype, requires_grad=True)
    return head, states, torch.randint(vocab, (rows,)), torch.randint(1, 4, (rows,))


def plain(head: Head, hidden: torch.Tensor) -> torch.Tensor:
    logits = functional.linear(hidden, head.weight, head.bias) * head.scale
    return logits if head.softcap is None else torch.tanh(logits / head.softcap) * head.softcap


@pytest.mark.parametrize(("logit_bytes", "softmax_bytes"), [(1, 1), (10_000, 5_000), (10**9, 7_000), (10**9, 10**9)])
@pytest.mark.parametrize("values", HEADS)
def test_loss_gradient_and_accuracy_are_those_of_plain_logits(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, float], logit_bytes: int, softmax_bytes: int
) -> None:
    monkeypatch.setitem(loss.LOGIT_BYTES, "cpu", logit_bytes)
    monkeypatch.setitem(loss.SOFTMAX_BYTES, "cpu", softmax_bytes)
    head, hidden, target, weight = make(torch.float64, **values)  # type: ignore[arg-type]
    logits = plain(head, hidden)
    expected = (functional.cross_entropy(logits, target, reduction="none") * weight).sum()
    found = head_scores(head, hidden, target).sums(weight)
    assert found.nll.item() == pytest.approx(expected.item(), rel=1e-12)
    assert found.num_correct == ((logits.argmax(-1) == target) * weight).sum()
    assert logit_scores(logits, target).sums(weight).nll.item() == pytest.approx(expected.item(), rel=1e-12)
    assert logit_scores(logits, target).sums(weight).num_correct == found.num_correct
    (mine,) = torch.autograd.grad(found.nll * 0.01, hidden)
    (theirs,) = torch.autograd.grad(expected * 0.01, hidden)
    assert (mine - theirs).norm() <= 1e-12 * theirs.norm()


def test_the_loss_of_16_bit_logits_is_added_up_in_float32() -> None:
    head, hidden, target, weight = make(torch.bfloat16)
    sums = head_scores(head, hidden, target).sums(weight)
    assert sums.nll.dtype == torch.float32
    wide = head_scores(Head(head.weight.double(), None), hidden.double(), target).sums(weight)
    assert sums.nll.item() == pytest.approx(wide.nll.item(), rel=5e-3)
    sums.nll.backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16


def test_extreme_logits_lose_nothing() -> None:
    head = Head(torch.tensor([[1e4], [-1e4]], dtype=torch.float64), None)
    hidden = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    assert head_scores(head, hidden, torch.tensor([1])).sums(torch.tensor([1])).nll.item() == 2e4


def test_evaluation_forms_no_gradient() -> None:
    head, hidden, target, weight = make(torch.float64)
    with torch.no_grad():
        sums = head_scores(head, hidden, target).sums(weight)
    assert not sums.nll.requires_grad
