"""Differences are ratios of totals, and their intervals come from drawing rows."""

import random

import pytest

from trainer.inference.evaluation.intervals import differences, share_interval

ONE_TO_TEN = [{"score": (float(number), 1.0)} for number in range(1, 11)]


def test_a_figure_is_the_ratio_of_the_totals() -> None:
    base = [{"loss": (10.0, 10)}, {"loss": (1.0, 90)}]
    tuned = [{"loss": (5.0, 10)}, {"loss": (0.0, 90)}]
    (found,) = differences(base, tuned, seed=1)
    assert (found.base, found.tuned, found.change) == pytest.approx((0.11, 0.05, -0.06))


def test_rows_are_drawn_in_pairs() -> None:
    """A shift that is the same in every row is certain, however much the rows differ."""
    shifted = [{"score": (total + 3, count)} for total, count in (row["score"] for row in ONE_TO_TEN)]
    (found,) = differences(ONE_TO_TEN, shifted, seed=1)
    assert (found.low, found.high) == pytest.approx((3, 3))
    assert found.is_clear


def test_the_interval_is_that_of_the_mean() -> None:
    draw = random.Random(7)
    changes = [draw.gauss(1, 2) for _ in range(400)]
    (found,) = differences([{"score": (0.0, 1)}] * 400, [{"score": (change, 1)} for change in changes], seed=1)
    assert found.change == pytest.approx(sum(changes) / 400)
    half = 1.96 * 2 / 400**0.5  # of a normal distribution with this spread
    assert found.low == pytest.approx(found.change - half, abs=0.03)
    assert found.high == pytest.approx(found.change + half, abs=0.03)


def test_the_seed_decides_the_interval() -> None:
    tuned = [{"score": (number + (-1) ** number, 1.0)} for number in range(1, 11)]
    first, again, other = (differences(ONE_TO_TEN, tuned, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert not first[0].is_clear


def test_a_measure_counts_only_the_rows_that_have_it() -> None:
    base = [{"score": (0.0, 1), "calls": (0.0, 2)}, {"score": (0.0, 1)}, {"score": (0.0, 1), "calls": (1.0, 1)}]
    tuned = [{"score": (1.0, 1), "calls": (2.0, 2)}, {"score": (1.0, 1)}, {"score": (1.0, 1), "calls": (1.0, 1)}]
    by_key = {found.key: found for found in differences(base, tuned, seed=1)}
    assert (by_key["calls"].base, by_key["calls"].tuned, by_key["calls"].num_rows) == pytest.approx((1 / 3, 1, 2))


def test_one_row_has_no_interval() -> None:
    (found,) = differences([{"score": (1.0, 1)}], [{"score": (2.0, 1)}], seed=1)
    assert (found.low, found.high, found.is_clear) == (None, None, False)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(41, 50, 0.692, 0.902), (20, 20, 0.839, 1.0), (0, 20, 0.0, 0.161)],  # the usual tables of Wilson's interval
)
def test_the_interval_of_a_share(count: int, total: int, low: float, high: float) -> None:
    assert share_interval(count, total) == pytest.approx((low, high), abs=0.0005)
