"""Every value is in one bin, and the numbers are those of the definitions."""

from hypothesis import given
from hypothesis import strategies as st

from trainer.data.files.stats import Bin, Spread, histogram, spread

VALUES = st.lists(st.integers(0, 100_000), min_size=1, max_size=300)


def test_the_spread_of_a_hundred_values():
    assert spread(range(100, 0, -1)) == Spread(
        total=5050, min=1, median=50.5, p95=95, max=100, histogram=histogram(range(1, 101))
    )


def test_bins_have_round_widths():
    assert histogram([250, 251, 299, 300, 420]) == (Bin(200, 299, 3), Bin(300, 399, 1), Bin(400, 499, 1))


def test_one_value_is_one_bin():
    assert histogram([7]) == (Bin(7, 7, 1),)
    assert histogram([0, 0]) == (Bin(0, 0, 2),)


def test_the_rows_far_beyond_the_others_share_the_last_bin():
    *bins, last = histogram([10] * 500 + [20] * 500 + [9_000, 10_000])
    assert last == Bin(22, None, 2)
    assert sum(bin_.rows for bin_ in bins) == 1000


@given(VALUES)
def test_every_value_is_counted_in_the_bin_it_belongs_to(values):
    bins = histogram(sorted(values))
    for bin_ in bins:
        last = max(values) if bin_.last is None else bin_.last
        assert bin_.rows == sum(bin_.first <= value <= last for value in values)
    assert sum(bin_.rows for bin_ in bins) == len(values)
    assert len(bins) <= 12


@given(VALUES)
def test_at_most_five_percent_are_above_the_95th_percentile(values):
    found = spread(values)
    assert sum(value > found.p95 for value in values) <= 0.05 * len(values)
    assert sum(value >= found.p95 for value in values) > 0.05 * len(values)
    assert found.p95 in values
