"""The sentence that a comparison comes to."""

from typing import Any

import pytest

from trainer.inference.evaluation.measures import Outcome, Sums
from trainer.inference.evaluation.significance import Difference, Distinct
from trainer.inference.evaluation.verdict import Verdict, make_verdict, win_rate

LOSS = Difference("loss", 50, 2.31, 1.07, -1.3, -1.1)


def verdict(
    base: int, tuned: int, outcomes: list[Outcome], distinct: Distinct | None = None, **changes: Any
) -> Verdict:
    """Of rows of one answer each, of which the first `base` and `tuned` are right, and the first `cut` do not end."""
    total, cut = len(outcomes), changes.get("cut", 0)
    sums = {
        name: [{"right": (float(number < count), 1.0), "ended": (float(number >= cut), 1.0)} for number in range(total)]
        for name, count in (("base", base), ("tuned", tuned))
    }
    groups = changes.get("groups", range(total))
    names = {"base": "base", "tuned": "tuned"}
    known = distinct or Distinct(total, total, 0, len(set(groups)))
    return make_verdict(outcomes, sums, "base", names, [LOSS], groups, known, 64)


def became(better: int, same: int, worse: int) -> list[Outcome]:
    return [*["better"] * better, *["same"] * same, *["worse"] * worse]  # type: ignore[list-item]  # mypy widens them


CASES = {
    "better: 41 of 50 answers right or nearly right (95% CI 69-90%), base 3; beyond noise better on 41 of 50 rows, "
    "worse on 1; loss 2.31 to 1.07": (3, 41, (41, 8, 1), "better"),
    "better: 20 of 20 answers right or nearly right (95% CI 84-100%), base 0; beyond noise better on 20 of 20 rows, "
    "worse on 0; loss 2.31 to 1.07": (0, 20, (20, 0, 0), "better"),
    "worse: 2 of 50 answers right or nearly right (95% CI 1-13%), base 30; beyond noise better on 0 of 50 rows, "
    "worse on 28; loss 2.31 to 1.07": (30, 2, (0, 22, 28), "worse"),
    "no clear difference: 3 of 50 answers right or nearly right (95% CI 2-16%), base 2; beyond noise better on 2 of 50 "
    "rows, worse on 1; loss 2.31 to 1.07": (2, 3, (2, 47, 1), "unclear"),
    "better: 0 of 50 answers right or nearly right (95% CI 0-7%), base 0; beyond noise better on 30 of 50 rows, worse "
    "on 4; loss 2.31 to 1.07": (0, 0, (30, 16, 4), "better"),
    "too few different rows to tell: 5 of 5 answers right or nearly right (95% CI 57-100%), base 0; beyond noise "
    "better on 5 of 5 rows, worse on 0; loss 2.31 to 1.07": (0, 5, (5, 0, 0), "unclear"),
    "too few different rows to tell: 0 of 1 answer right or nearly right (95% CI 0-79%), base 1; beyond noise better "
    "on 0 of 1 row, worse on 1; loss 2.31 to 1.07": (1, 0, (0, 0, 1), "unclear"),
}  # fmt: skip


@pytest.mark.parametrize("sentence", CASES)
def test_it_says_no_more_than_the_rows_show(sentence: str) -> None:
    base, tuned, (better, same, worse), kind = CASES[sentence]
    found = verdict(base, tuned, became(better, same, worse))
    assert (found.sentence, found.kind, found.remarks) == (sentence, kind, ())
    assert (found.answers, dict(found.right)) == (better + same + worse, {"base": base, "tuned": tuned})
    assert (found.better, found.same, found.worse) == (better, same, worse)


def test_right_answers_decide_before_those_that_came_closer() -> None:
    assert verdict(0, 20, became(20, 0, 30)).kind == "better"


def test_wrong_answers_that_sound_alike_are_not_better() -> None:
    """Twenty rows of which four are right: what the other sixteen share with their references is noise."""
    found = verdict(0, 4, became(4, 16, 0))
    assert (found.kind, found.better) == ("unclear", 4)


def test_twenty_rows_of_four_answers_are_four_observations() -> None:
    found = verdict(0, 20, became(20, 0, 0), Distinct(16, 4, 4, 4), groups=[number % 4 for number in range(20)])
    assert (found.kind, found.sentence.partition(":")[0]) == ("unclear", "too few different rows to tell")
    assert "(95% CI 51-100%)" in found.sentence
    assert found.remarks == (
        "20 rows are 16 different ones; rows that expect the same answer count as one observation in the intervals, "
        "which leaves 4",
        "4 of 4 different answers were trained on, to other questions or the same in other words: there this shows "
        "what the model has learned, and not how it does on anything new",
    )


def test_rows_that_nobody_knows_to_be_trained_are_not_said_to_be() -> None:
    assert verdict(0, 9, became(9, 0, 0), Distinct(9, 9, None, 9)).remarks == ()


def test_answers_that_do_not_end_are_told_and_many_of_them_in_the_sentence() -> None:
    few, many = (verdict(0, 20, became(20, 0, 0), cut=cut) for cut in (4, 5))
    assert (few.unended, many.unended) == ({"base": 4, "tuned": 4}, {"base": 5, "tuned": 5})
    assert few.remarks == (
        "4 of 20 answers did not end within 64 tokens (base 4); train longer if they ramble, raise "
        "evaluation.max_new_tokens if they are good so far",
    )
    assert few.sentence.endswith("loss 2.31 to 1.07")
    assert many.sentence.endswith("loss 2.31 to 1.07; 5 of 20 answers did not end")


def test_a_continued_run_is_held_against_the_one_that_it_came_from() -> None:
    """11 of 20 were right before it, 10 after: what the base did beside it changes nothing."""
    right = {"base": range(0), "start": range(11), "tuned": range(1, 11)}
    sums = {name: [{"right": (float(n in hits), 1.0), "ended": (1.0, 1.0)} for n in range(20)]
            for name, hits in right.items()}  # fmt: skip
    names = {"base": "base", "start": "first", "tuned": "tuned"}
    distinct = Distinct(20, 20, 0, 20)
    found = make_verdict(became(0, 19, 1), sums, "start", names, [LOSS], range(20), distinct, 64)
    assert (found.kind, found.against) == ("unclear", "start")
    assert found.sentence == (
        "no clear difference from first: 10 of 20 answers right or nearly right (95% CI 30-70%), first 11, base 0; "
        "beyond noise better on 0 of 20 rows, worse on 1; loss 2.31 to 1.07"
    )
    sums["tuned"] = [{"right": (1.0, 1.0), "ended": (1.0, 1.0)}] * 20
    better = make_verdict(became(9, 11, 0), sums, "start", names, [LOSS], range(20), distinct, 64)
    assert better.sentence.startswith("better than first: 20 of 20 answers right or nearly right")


def test_a_pair_is_won_where_the_margin_has_grown_and_other_rows_do_not_count() -> None:
    def rows(*margins: float | None) -> list[Sums]:
        return [{"right": (1, 1)} if margin is None else {"margin": (margin, 1.0)} for margin in margins]

    before, after = rows(-3.0, 1.0, None, 2.0, 0.0), rows(-2.0, 0.5, None, 2.0, 4.0)
    found = win_rate(before, after, [0, 1, 2, 3, 4])
    assert found is not None
    assert (found.wins, found.pairs, found.interval) == (2, 4, pytest.approx((0.15, 0.85), abs=0.01))
    assert str(found) == (
        "its margin favours the preferred answer, beside the reference, on 2 of 4 pairs (95% CI 15-85%)"
    )
    alike = win_rate(rows(*[0.0] * 10), rows(*[1.0] * 10), [0] * 10)
    assert alike is not None
    assert alike.interval[0] < 0.3, "ten pairs of one answer are one observation"
    assert win_rate(rows(None), rows(None), [0]) is None
