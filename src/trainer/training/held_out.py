"""The rows that a run evaluates again and again: their packs are made once for each token budget."""

from collections.abc import Callable, Iterator, Sequence

from trainer.data.pack.packing import Pack
from trainer.data.render.rendering import Example
from trainer.training.dataset import Rows

MAX_KEPT_TOKENS = 8_000_000  # 24 bytes each; packs of more are made anew each time


class HeldOut:
    """The first `count` rows of `rows`."""

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
