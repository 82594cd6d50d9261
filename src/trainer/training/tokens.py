"""The tokens of many rows in a few arrays: five bytes a token, where Python's own numbers take fifty."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from trainer.data.render.rendering import IGNORE_INDEX, Example


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """The examples of R rows, E in all, with N tokens: one after the other."""

    ids: NDArray[np.int32]  # [N]
    trained: NDArray[np.int8]  # [N], 1 where a token is supervised
    starts: NDArray[np.int64]  # [E + 1], where each example begins in `ids`, and where the last one ends
    firsts: NDArray[np.int64]  # [R + 1], the first example of each row; a row may have none

    @classmethod
    def of(cls, rows: Sequence[Sequence[Example]]) -> "Tokens":
        """Those of rendered rows."""
        examples = [example for row in rows for example in row]
        ids = np.fromiter(chain.from_iterable(example.input_ids for example in examples), np.int32)
        labels = np.fromiter(chain.from_iterable(example.labels for example in examples), np.int32)
        lengths, counts = [len(example.input_ids) for example in examples], [len(row) for row in rows]
        return cls(ids, (labels != IGNORE_INDEX).view(np.int8), _sums(lengths), _sums(counts))

    @classmethod
    def joined(cls, parts: Sequence["Tokens"]) -> "Tokens":
        """The rows of all parts, in order."""
        lengths, counts = (
            np.concatenate([np.diff(values) for values in column])
            for column in zip(*((part.starts, part.firsts) for part in parts), strict=True)
        )
        ids, trained = (np.concatenate(column) for column in zip(*((p.ids, p.trained) for p in parts), strict=True))
        return cls(ids, trained, _sums(lengths), _sums(counts))

    def examples(self, row: int) -> tuple[Example, ...]:
        """The examples of one row as they were rendered."""
        return tuple(self._example(number) for number in range(self.firsts[row], self.firsts[row + 1]))

    def _example(self, number: int) -> Example:
        place = slice(self.starts[number], self.starts[number + 1])
        labels = np.where(self.trained[place] != 0, self.ids[place], IGNORE_INDEX)
        return Example(tuple(self.ids[place].tolist()), tuple(labels.tolist()))

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        """Of each row [R]."""
        return np.diff(self.starts[self.firsts])

    @property
    def num_supervised(self) -> NDArray[np.int64]:
        """Of each row [R]."""
        return np.diff(np.searchsorted(np.flatnonzero(self.trained), self.starts[self.firsts]))

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return int(np.diff(self.starts).max(initial=0))


def _sums(counts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """0 and the sum of the first, of the first two, and so on."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
