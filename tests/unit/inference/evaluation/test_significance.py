"""Differences are ratios of totals, and their intervals come from drawing rows."""

import random
from collections.abc import Sequence

import pytest

from trainer.inference.evaluation import significance
from trainer.inference.evaluation.measures import Outcome, Sums
from trainer.inference.evaluation.significance import Decision, Difference, decide, share_interval, sign_test

ONE_TO_TEN = [{"score": (float(number), 1.0)} for number in range(1, 11)]


def differences(base: Sequence[Sums], tuned: Sequence[Sums], seed: int) -> list[Difference]:
    """Where each row is an observation of its own."""
    return significance.differences(base, tuned, list(range(len(base))), seed)


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
    rows = [(float(number < count), 1.0) for number in range(total)]
    assert share_interval(rows, range(total)) == pytest.approx((low, high), abs=0.0005)


def test_rows_that_are_one_observation_are_drawn_together() -> None:
    """Forty rows of ten answers, each known for all four questions or none, are as uncertain as ten rows."""
    known = [1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    once = [{"right": (value, 1.0)} for value in known]
    (ten,) = differences([{"right": (0.0, 1.0)}] * 10, once, seed=1)
    repeated = [row for row in once for _ in range(4)]
    group = [number for number in range(10) for _ in range(4)]
    (forty,) = significance.differences([{"right": (0.0, 1.0)}] * 40, repeated, group, seed=1)
    assert (forty.tuned, forty.low, forty.high) == pytest.approx((0.7, ten.low, ten.high))
    assert (forty.num_rows, forty.num_groups) == (40, 10)
    shares = share_interval([row["right"] for row in repeated], group)
    alone = share_interval([row["right"] for row in once], range(10))
    assert shares == pytest.approx(alone, abs=0.02)
    assert share_interval([row["right"] for row in repeated], range(40))[0] > shares[0] + 0.1


def test_rows_of_a_group_that_differ_as_much_as_others_stay_observations() -> None:
    draw = random.Random(3)
    rows = [(float(draw.random() < 0.6), 1.0) for _ in range(400)]
    grouped, alone = share_interval(rows, [number // 4 for number in range(400)]), share_interval(rows, range(400))
    assert grouped == pytest.approx(alone, abs=0.02)


@pytest.mark.parametrize("hit", [0.0, 1.0])
def test_all_or_none_of_a_few_answers_is_no_certainty(hit: float) -> None:
    """Twenty rows of five answers: nothing differs, and still no more than five were observed."""
    rows = [(hit, 1.0)] * 20
    low, high = share_interval(rows, [number % 5 for number in range(20)])
    assert (low, high) == pytest.approx(share_interval(rows[:5], range(5)))
    assert high - low > 0.4


def test_five_observations_are_too_few_for_a_clear_difference() -> None:
    base, tuned = [{"score": (1.0, 1.0)}] * 10, [{"score": (2.0, 1.0)}] * 10
    (found,) = significance.differences(base, tuned, [number // 2 for number in range(10)], seed=1)
    assert (found.low, found.is_clear) == (1.0, False)
    assert differences(base, tuned, seed=1)[0].is_clear


@pytest.mark.parametrize(
    ("up", "down", "chance"),
    [(6, 0, 2 / 64), (0, 5, 2 / 32), (7, 1, 18 / 256), (1, 8, 20 / 512), (4, 4, 1.0), (0, 0, 1.0)],
)
def test_the_sign_test_is_exact(up: int, down: int, chance: float) -> None:
    assert sign_test(up, down) == chance


def decided(right: list[float], outcomes: list[Outcome], groups: Sequence[int] | None = None) -> Decision:
    """Where `right` is by how many more answers of each row are right."""
    base, tuned = ([{"right": (value, 1.0)} for value in values] for values in ([0.0] * len(right), right))
    return decide(base, tuned, outcomes, groups or range(len(right)))


@pytest.mark.parametrize(
    ("right", "outcomes", "found"),
    [
        ([1] * 7, ["better"] * 7, Decision("better", "right")),  # 2 in 128
        ([1] * 6, ["better"] * 6, Decision("unclear")),  # 2 in 64: half of 5 in 100 is left for each test
        ([1] * 7 + [0] * 3, ["better"] * 7 + ["same"] * 3, Decision("better", "right")),  # no change says nothing
        ([-1] * 9 + [1], ["worse"] * 9 + ["better"], Decision("worse", "right")),  # 22 in 1024
        ([0] * 9, ["better"] * 8 + ["worse"], Decision("unclear")),  # 20 in 512
        ([0] * 9, ["worse"] * 9, Decision("worse", "score")),
        ([1] * 7 + [0] * 30, ["better"] * 7 + ["worse"] * 30, Decision("better", "right")),  # right answers come first
        ([], [], Decision("unclear")),
    ],
)
def test_right_answers_decide_and_then_those_that_came_closer(
    right: list[float], outcomes: list[Outcome], found: Decision
) -> None:
    assert decided(right, outcomes) == found


def test_seven_rows_of_one_answer_are_one_observation() -> None:
    assert decided([1] * 7, ["better"] * 7, [0] * 7) == Decision("unclear")


def test_one_large_group_does_not_turn_the_direction() -> None:
    """Nine answers got worse; the nine rows that expect a tenth got better, and are one observation."""
    found = decided([-1] * 9 + [1] * 20, ["worse"] * 9 + ["better"] * 20, [*range(9), *[9] * 20])
    assert found == Decision("worse", "right")
