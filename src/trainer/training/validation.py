"""Validation during training: loss and token accuracy of the held-out rows, of a few often and of all each epoch."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from trainer.data.pack.packing import Pack
from trainer.data.render.rendering import Example
from trainer.errors import TrainingError
from trainer.training.dataset import Rows

if TYPE_CHECKING:
    from trainer.training.executor import Executor

MAX_KEPT_TOKENS = 8_000_000  # 24 bytes each; packs of more are made anew each time


class ValidationRows:
    """The first `count` rows of `rows`, evaluated again and again: their packs are made once for each token budget."""

    def __init__(self, rows: Rows, count: int) -> None:
        self.rows, self.count = rows, min(count, len(rows))
        self._budget: int | None = None  # of the packs that are kept
        self._packs: list[Pack] = []

    @property
    def num_supervised(self) -> int:
        return int(self.rows.num_supervised[: self.count].sum())

    def longest(self) -> int:
        """Tokens of the longest example."""
        return max(len(example.input_ids) for example in self._examples())

    def packs(self, token_budget: int, make: Callable[[Sequence[Example]], list[Pack]]) -> list[Pack]:
        """The packs that `make` cuts the rows into for this budget; kept until another budget comes."""
        if self._budget != token_budget:
            self._budget, self._packs = None, []  # not two at a time
            packs = make(list(self._examples()))
            if sum(len(pack.input_ids) for pack in packs) > MAX_KEPT_TOKENS:
                return packs
            self._budget, self._packs = token_budget, packs
        return self._packs

    def _examples(self) -> Iterator[Example]:
        return (example for number in range(self.count) for example in self.rows[number].examples)


class Validation:
    """Evaluates the first `eval_rows` of `rows`, and all of them at the end of an epoch."""

    few: Any
    all: Any

    def __init__(self, executor: "Executor", rows: Rows, eval_rows: int) -> None:
        self.executor = executor
        self.few, self.all = ValidationRows(rows, eval_rows), ValidationRows(rows, len(rows))

    def __bool__(self) -> bool:
        return bool(self.all.count)

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
    def _means(self, rows: Any, step: int) -> dict[str, float]:
        """Mean loss and token accuracy over the supervised tokens of `rows`."""
        model = self.executor.model
        model.eval()
        nll, num_correct = self.executor.losses(rows, step)
        model.train()
        refuse_not_finite(nll, step)
        total = rows.num_supervised
        return {"loss": float(nll) / total, "mean_token_accuracy": int(num_correct) / total}


def refuse_not_finite(loss: torch.Tensor, step: int) -> None:
    """Raises: TrainingError, when a validation loss is no number."""
    if not torch.isfinite(loss):
        raise TrainingError(
            f"step {step}: the validation loss is not finite, expected finite numbers; "
            "the newest checkpoint before it is kept"
        )
