"""How sure a difference is: bootstrap intervals, with a row as the unit, however many answers it holds.

Every figure is a ratio of two totals over the rows. Rows are drawn with replacement, many times, base and tuned
together; the interval holds the middle 95% of the differences between their ratios.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from trainer.inference.evaluation.measures import MEASURES, Sums

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, numpy.dtype[Any]]

CONFIDENCE = 0.95
RESAMPLES = 10_000
BLOCK = 2_000_000  # numbers drawn at a time


@dataclass(frozen=True, slots=True)
class Difference:
    """A measure of two models over the same rows; `low` to `high` holds what the second has more."""

    key: str
    num_rows: int
    base: float
    tuned: float
    low: float | None  # None where a single row has the measure
    high: float | None

    @property
    def change(self) -> float:
        return self.tuned - self.base

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def differences(base: Sequence[Sums], tuned: Sequence[Sums], seed: int) -> list[Difference]:
    """Each measure that some row has; `base` and `tuned` are the same rows in the same order."""
    import numpy

    counts = {key: sum(key in row for row in base) for key in MEASURES}
    present = [key for key, count in counts.items() if count]
    none = (0.0, 0.0)  # a row without a measure adds nothing to its total nor to its count
    table = numpy.array(
        [[(b.get(key, none), t.get(key, none)) for key in present] for b, t in zip(base, tuned, strict=True)]
    )  # [rows, measures, base and tuned, total and count]
    before, after = _ratios(table.sum(axis=0)).T.tolist()
    resampled = _ratios(_resampled(table, seed))  # [resamples, measures, base and tuned]
    tails = [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]
    low, high = numpy.nanpercentile(resampled[..., 1] - resampled[..., 0], tails, axis=0).tolist()
    return [
        Difference(key, counts[key], before[i], after[i], *((low[i], high[i]) if counts[key] > 1 else (None, None)))
        for i, key in enumerate(present)
    ]


def _resampled(table: "Array", seed: int) -> "Array":
    """Totals over rows drawn with replacement, [resamples, measures, 2, 2]."""
    import numpy

    num_rows = len(table)
    rng, flat, size = numpy.random.default_rng(seed), table.reshape(num_rows, -1), max(1, BLOCK // num_rows)
    blocks = [
        # How often each row is drawn in each resample, times the row.
        rng.multinomial(num_rows, [1 / num_rows] * num_rows, size=min(size, RESAMPLES - done)) @ flat
        for done in range(0, RESAMPLES, size)
    ]
    return numpy.concatenate(blocks).reshape(-1, *table.shape[1:])


def _ratios(totals: "Array") -> "Array":
    """Total by count, NaN where nothing was counted."""
    import numpy

    with numpy.errstate(invalid="ignore"):
        ratios: Array = totals[..., 0] / totals[..., 1]
    return ratios


def share_interval(count: int, total: int) -> tuple[float, float]:
    """Wilson's interval of a share: at none or all of a few rows a bootstrap would claim to be certain."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, spread = count / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * ((share * (1 - share) + spread / 4) / total) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
