"""Next-token loss of the supervised tokens of a pack; of chats as sums, and the step divides once, by its own count.

Only supervised rows reach the output head, a chunk at a time: the logits of a pack never exist together. A head that
is not trained has no gradient of its own, so the gradient of its input is formed in the same pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from trainer.data.render.rendering import IGNORE_INDEX, Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# At a time: of logits as the head computes them, and of the softmax made of them, in float32. A CPU holds the latter in
# its cache; for a GPU large products count, and what it gains by them was not measured.
LOGIT_BYTES = {"cpu": 2**25, "cuda": 2**27}
SOFTMAX_BYTES = {"cpu": 2**22, "cuda": 2**28}


@dataclass(frozen=True, slots=True)
class Sums:
    """Added over tokens; scalars on the device, so that nothing waits for them."""

    nll: Tensor  # float32, negative log-likelihood in nats
    num_correct: Tensor  # int64, tokens whose most likely prediction was the target


@dataclass(frozen=True, slots=True)
class Scores:
    """Of each scored token [S]."""

    nll: Tensor  # at least float32, negative log-likelihood in nats
    is_correct: Tensor  # bool, the most likely prediction was the target

    def sums(self, weight: Tensor) -> Sums:
        """Each token as often as weight [S] says."""
        return Sums((self.nll * weight).sum(), (self.is_correct * weight).sum())


@dataclass(frozen=True, slots=True)
class Head:
    """A frozen output head: logits = softcap(scale * (hidden @ weight.T + bias))."""

    weight: Tensor  # [V, H]
    bias: Tensor | None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden [S, H] to logits [S, V], at least float32."""
        return self.scaled(self.product(hidden))

    def product(self, hidden: Tensor) -> Tensor:
        """Product with the head, not yet scaled and capped to logits, in the head's own number format."""
        return functional.linear(hidden, self.weight, self.bias)

    def scaled(self, product: Tensor) -> Tensor:
        logits = _wide(product)
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else (logits / self.softcap).tanh_().mul_(self.softcap)


def find_head(model: "PreTrainedModel") -> Head | None:
    """The model's output head, None where it is trained or is no plain linear layer."""
    head = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or any(weight.requires_grad for weight in head.parameters()):
        return None
    config = model.config.get_text_config(decoder=True)
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    return Head(head.weight, head.bias, scale, getattr(config, "final_logit_softcapping", None))


def head_scores(head: Head, hidden: Tensor, target: Tensor) -> Scores:
    """Hidden [S, H] scored against target [S]."""
    return Scores(*_FrozenHead.apply(hidden, target, head))  # type: ignore[no-untyped-call]  # torch's


def logit_scores(logits: Tensor, target: Tensor) -> Scores:
    """The same from ready logits [S, V], for heads that are trained themselves."""
    nll = functional.cross_entropy(_wide(logits), target, reduction="none")
    return Scores(nll, logits.detach().argmax(dim=-1) == target)


def plain_sums(model: torch.nn.Module, example: Example) -> Sums:
    """One example alone through the model's own attention and head: what every pack must add up to."""
    device = next(model.parameters()).device
    labels = torch.tensor(example.labels[1:], device=device)
    scored = (labels != IGNORE_INDEX).nonzero().squeeze(1)
    input_ids = torch.tensor([example.input_ids], device=device)
    logits = model(input_ids=input_ids, logits_to_keep=scored, use_cache=False).logits[0]
    return logit_scores(logits, labels[scored]).sums(torch.ones_like(scored))


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, target: Tensor, head: Head) -> tuple[Tensor, Tensor]:
        nll = torch.empty(len(hidden), dtype=_wide(hidden[:0]).dtype, device=hidden.device)
        is_correct = torch.empty(len(hidden), dtype=torch.bool, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        size = rows_within(LOGIT_BYTES[hidden.device.type], head.weight.shape[0] * hidden.element_size())
        for part in _parts(len(hidden), size):
            slot = None if gradient is None else gradient[part]
            nll[part], is_correct[part] = _score(head, hidden[part], target[part, None], slot)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(is_correct)
        return nll, is_correct

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (_wide(gradient) * gradients[0][:, None]).to(gradient.dtype), None, None


def _score(head: Head, hidden: Tensor, target: Tensor, gradient: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scores of one chunk; the gradient of its hidden states goes to `gradient`. Its logits are gone at the end."""
    product = head.product(hidden)
    scores = []
    for part in _parts(len(product), rows_within(SOFTMAX_BYTES[product.device.type], 4 * product.shape[1])):
        likelihood, predicted = _to_gradient(head, product[part], target[part])
        scores.append((-likelihood[:, 0], (predicted == target[part])[:, 0]))
    if gradient is not None:
        torch.mm(product, head.weight, out=gradient)
        gradient.mul_(head.scale)
    nll, is_correct = map(torch.cat, zip(*scores, strict=True))
    return nll, is_correct


def _to_gradient(head: Head, product: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Log-likelihood and prediction of each row [S, 1]; `product` [S, V] becomes the gradient of one row's loss.

    All of it is made of one softmax. The probability of a target may be too small for a number, that of a prediction
    never is, and their logits tell how far they are apart.
    """
    logits = head.scaled(product)
    probability = torch.softmax(logits, dim=-1)
    highest, predicted = probability.max(dim=-1, keepdim=True)
    likelihood = highest.log() + logits.gather(1, target) - logits.gather(1, predicted)
    probability.scatter_add_(1, target, torch.full_like(highest, -1.0))
    if head.softcap is not None:
        probability.mul_(1 - (logits / head.softcap) ** 2)
    product.copy_(probability)
    return likelihood, predicted


def rows_within(num_bytes: int, row_bytes: int) -> int:
    """As many rows as have `num_bytes`; fewer than 16 would be slow."""
    return max(16, num_bytes // row_bytes)


def _parts(rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
