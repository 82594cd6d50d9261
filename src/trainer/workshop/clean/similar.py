"""Rows that say the same in nearly the same words: candidates from shared bands, each pair compared exactly."""

from array import array
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.workshop.clean.said import SaidRows
from trainer.workshop.clean.signatures import NUM_BANDS, Digests, Template, runs_of, sign

NUM_SAMPLED = 2_000  # rows that show what belongs to a template
NUM_COMPARED = 4  # rows of a crowded band that each of its rows is compared with: next ones, and as many first ones
_CACHED_ROWS = 1_024

Numbers = npt.NDArray[np.int64]
Progress = Callable[[int], None]


class Resemblance(NamedTuple):
    """A row, by its number, and the row that it resembles."""

    row: int
    other: int
    similarity: float


class _Parts(NamedTuple):
    """The runs of prompt and answer, without the template's and with them."""

    rest: tuple[frozenset[int], frozenset[int]]
    whole: tuple[frozenset[int], frozenset[int]]


class Comparison:
    """Compares rows of one table; `threshold` is the least similarity that counts, of prompts and of answers.

    `progress` receives the number of rows that have been signed.
    """

    def __init__(self, rows: SaidRows, threshold: float, progress: Progress | None = None) -> None:
        self.rows, self.threshold = rows, threshold
        self._progress = progress or (lambda count: None)
        self._text, self._context, self._signs = map(_column, (rows.text, rows.context, rows.signs))
        self._template: Template | None = None
        self._bands: Digests = np.zeros((0, NUM_BANDS), np.uint64)
        self._parts = lru_cache(_CACHED_ROWS)(self._read_parts)

    def learn_template(self, numbers: Numbers, held_out: Numbers) -> None:
        """Find the template of the rows `numbers`, and sign these and `held_out` without it."""
        sample = np.sort(numbers[np.argsort(self._text[numbers], kind="stable")[:NUM_SAMPLED]])
        template = Template([self.rows.folded(number) for number in sample.tolist()])
        if template.same_as(self._template):
            return
        self._template = template
        self._parts.cache_clear()
        if not len(self._bands):
            self._bands = np.zeros((len(self.rows), NUM_BANDS), np.uint64)
        for batch, texts in self.rows.batches(np.concatenate([numbers, held_out]).tolist()):
            self._bands[batch] = sign(texts, template) ^ self._signs[batch, None]
            self._progress(batch[-1] + 1)

    def leaks(self, numbers: Numbers, held_out: Numbers) -> list[Resemblance]:
        """Those of `numbers` that resemble a row of `held_out`, each with the one it resembles most."""
        found = self._same_text(numbers, held_out)
        for row, other in self._new_pairs(lambda band: self._met_between(numbers, held_out, band)):
            similarity = self.similarity(row, other)
            if similarity >= self.threshold and (row not in found or similarity > found[row].similarity):
                found[row] = Resemblance(row, other, similarity)
        return [found[row] for row in sorted(found)]

    def repeats(self, numbers: Numbers) -> list[Resemblance]:
        """Those of `numbers` that resemble an earlier one which stays itself.

        In a band of many rows not all pairs are compared: call it again on what is left, until it finds nothing.
        """
        pairs = {}
        for row, other in self._new_pairs(lambda band: self._met_within(numbers, band)):
            if (similarity := self.similarity(row, other)) >= self.threshold:
                pairs[row, other] = similarity
        found: dict[int, Resemblance] = {}
        for (row, other), similarity in sorted(pairs.items()):
            if other not in found and (row not in found or similarity > found[row].similarity):
                found[row] = Resemblance(row, other, similarity)
        return list(found.values())

    def similarity(self, row: int, other: int) -> float:
        """The lesser of the Jaccard similarities of prompts and of answers; 0 where numbers or negations differ."""
        if self.rows.signs[row] != self.rows.signs[other]:
            return 0.0
        first, second = self._parts(row), self._parts(other)
        return min(_alike(first, second, part) for part in (0, 1))

    def _read_parts(self, number: int) -> _Parts:
        assert self._template is not None
        runs, (num_prompt, _) = runs_of([self.rows.folded(number)])
        kept = ~self._template.covers(runs)
        parts = (runs[:num_prompt], kept[:num_prompt]), (runs[num_prompt:], kept[num_prompt:])
        rest, whole = [frozenset(r[k].tolist()) for r, k in parts], [frozenset(r.tolist()) for r, _ in parts]
        return _Parts((rest[0], rest[1]), (whole[0], whole[1]))

    def _same_text(self, numbers: Numbers, held_out: Numbers) -> dict[int, Resemblance]:
        """Rows that say exactly what a row of `held_out` says."""
        first = {self.rows.text[number]: number for number in reversed(held_out.tolist())}
        met = numbers[np.isin(self._text[numbers], self._text[held_out])].tolist()
        return {number: Resemblance(number, first[self.rows.text[number]], 1.0) for number in met}

    def _new_pairs(self, met_in: Callable[[int], tuple[Numbers, Numbers]]) -> Iterator[tuple[int, int]]:
        """Pairs that meet in some band, each once."""
        seen = np.zeros(0, np.int64)
        for band in range(NUM_BANDS):
            ones, others = met_in(band)
            codes, index = np.unique(ones * len(self.rows) + others, return_index=True)
            is_new = ~np.isin(codes, seen, assume_unique=True)
            index = np.sort(index[is_new])  # as they met: pairs of a row follow one another
            seen = np.union1d(seen, codes)
            yield from zip(ones[index].tolist(), others[index].tolist(), strict=True)

    def _met_within(self, numbers: Numbers, band: int) -> tuple[Numbers, Numbers]:
        """Rows of equal context that share a band, as (later, earlier); in a crowd each meets a few."""
        column = self._bands[numbers, band] ^ self._context[numbers]
        order = np.lexsort((self._text[numbers], column))
        ordered, column = numbers[order], column[order]
        place = np.arange(len(column))
        starts = np.flatnonzero(np.diff(column, prepend=~column[:1]) != 0)
        in_crowd = place - np.repeat(starts, np.diff(starts, append=len(column)))
        met = [np.zeros((2, 0), np.int64)]
        for step in range(1, NUM_COMPARED + 1):
            near = np.flatnonzero(in_crowd >= step)
            met.append(np.stack([ordered[near], ordered[near - step]]))
            far = np.flatnonzero(in_crowd >= NUM_COMPARED + step)
            met.append(np.stack([ordered[far], ordered[far - in_crowd[far] + step - 1]]))
        pairs = np.concatenate(met, axis=1)
        return pairs.max(0, initial=0), pairs.min(0, initial=len(self.rows))

    def _met_between(self, numbers: Numbers, held_out: Numbers, band: int) -> tuple[Numbers, Numbers]:
        """Rows that share a band with a held-out row, as (row, held-out row)."""
        ordered = held_out[np.lexsort((self._text[held_out], self._bands[held_out, band]))]
        known, wanted = self._bands[ordered, band], self._bands[numbers, band]
        left, right = np.searchsorted(known, wanted, "left"), np.searchsorted(known, wanted, "right")
        met = [np.zeros((2, 0), np.int64)]
        for step in range(2 * NUM_COMPARED):
            shared = np.flatnonzero(left + step < right)
            met.append(np.stack([numbers[shared], ordered[left[shared] + step]]))
        ones, others = np.concatenate(met, axis=1)
        return ones, others


def _column(values: "array[int]") -> Digests:
    return np.asarray(values, np.uint64)


def _alike(first: _Parts, second: _Parts, part: int) -> float:
    """Jaccard similarity of two parts beside the template; of all of them where both have nothing else."""
    one, other = first.rest[part], second.rest[part]
    if not one and not other:
        one, other = first.whole[part], second.whole[part]
    return len(one & other) / len(one | other)
