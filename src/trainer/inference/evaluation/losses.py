"""Loss and token accuracy of single rows, with the masks of training and the adapter on or off."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from trainer.errors import TrainingError
from trainer.training.dataset import Row

if TYPE_CHECKING:
    from trainer.inference.local import TunedModel


def row_losses(model: "TunedModel", rows: Sequence[Row], *, adapter: bool) -> list[dict[str, tuple[float, float]]]:
    """Of each row the sums over its supervised tokens, with their number.

    Raises: TrainingError, where a loss is not finite, or a row does not fit into the memory.
    """
    import torch

    with torch.no_grad(), nullcontext() if adapter else model.model.disable_adapter():
        return [_row_loss(model, row) for row in rows]


def _row_loss(model: "TunedModel", row: Row) -> dict[str, tuple[float, float]]:
    from trainer.training.loss import plain_sums

    sums = model.ranks.tried(lambda: [plain_sums(model.model, example) for example in row.examples])
    if sums is None:
        raise TrainingError(
            f"{row.conversation.place}: a row of {row.num_tokens:,} tokens does not fit into the memory; leave it out"
        )
    nll = sum(float(each.nll) for each in sums)
    num_correct = sum(float(each.num_correct) for each in sums)
    if not math.isfinite(nll):
        raise TrainingError(f"{row.conversation.place}: the loss is not finite, expected a number; train anew")
    return {"loss": (nll, row.num_supervised), "token_accuracy": (num_correct, row.num_supervised)}
