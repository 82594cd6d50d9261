"""How a measure is spread over rows: its middle, its ends, and a histogram."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

MAX_BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows whose measure is at least `first` and at most `last`; None where there is no upper end."""

    first: int
    last: int | None
    rows: int


@dataclass(frozen=True, slots=True)
class Spread:
    """A measure of all rows; `p95` is the least value that 95 % of the rows do not exceed."""

    total: int
    min: int
    median: float
    p95: int
    max: int
    histogram: tuple[Bin, ...]


def spread(values: Sequence[int]) -> Spread:
    """The spread of one value or more."""
    in_order = sorted(values)
    return Spread(
        total=sum(in_order),
        min=in_order[0],
        median=statistics.median(in_order),
        p95=_rank(in_order, 0.95),
        max=in_order[-1],
        histogram=histogram(in_order),
    )


def histogram(in_order: Sequence[int]) -> tuple[Bin, ...]:
    """Bins of a round width up to the 99th percentile, and one without an end for the values beyond.

    About as many as Sturges' rule has: 1 + log2 of the number of values.
    """
    low, high = in_order[0], _rank(in_order, 0.99)
    width = _round_width((high - low + 1) / min(MAX_BINS, 1 + math.log2(len(in_order))))
    start = low // width * width
    num_bins = (high - start) // width + 1
    counts = Counter(min((value - start) // width, num_bins) for value in in_order)
    edges = [start + width * number for number in range(num_bins + 1)]
    bins = [Bin(first, first + width - 1, counts[number]) for number, first in enumerate(edges[:-1])]
    return tuple(bins + [Bin(edges[-1], None, counts[num_bins])] * (counts[num_bins] > 0))


def _rank(in_order: Sequence[int], share: float) -> int:
    return in_order[math.ceil(share * len(in_order)) - 1]


def _round_width(width: float) -> int:
    """The least of 1, 2, 5, 10, 20, 50, … that is not below `width`."""
    power = int(10 ** max(math.floor(math.log10(width)), 0))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width)
