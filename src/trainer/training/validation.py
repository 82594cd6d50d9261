"""Validation during training: loss and token accuracy of the held-out rows, of a few often and of all each epoch."""

import torch

from trainer.errors import TrainingError
from trainer.training.dataset import Rows
from trainer.training.executor import Executor
from trainer.training.held_out import HeldOut


class Validation:
    """Evaluates the first `eval_rows` of `rows`, and all of them at the end of an epoch."""

    def __init__(self, executor: Executor, rows: Rows, eval_rows: int) -> None:
        self.executor = executor
        self.few, self.all = HeldOut(rows, eval_rows), HeldOut(rows, len(rows))

    def __bool__(self) -> bool:
        return self.all.count > 0

    def measure(self, step: int, epoch_end: bool) -> dict[str, float]:
        """`valid_*` of the few rows, and at the end of an epoch `full_valid_*` of all.

        Raises: TrainingError, when a loss is not finite.
        """
        few = self._means(self.few, step)
        result = {f"valid_{name}": value for name, value in few.items()}
        if epoch_end:
            every = few if self.few.count == self.all.count else self._means(self.all, step)
            result |= {f"full_valid_{name}": value for name, value in every.items()}
        return result

    @torch.no_grad()
    def _means(self, rows: HeldOut, step: int) -> dict[str, float]:
        """Mean loss and token accuracy over the supervised tokens of `rows`."""
        model = self.executor.model
        model.eval()
        nll, num_correct = self.executor.losses(rows, step)
        model.train()
        if not torch.isfinite(nll):
            raise TrainingError(
                f"step {step}: the validation loss is not finite, expected finite numbers; "
                "the newest checkpoint before it is kept"
            )
        total = rows.num_supervised
        return {"loss": float(nll) / total, "mean_token_accuracy": int(num_correct) / total}
