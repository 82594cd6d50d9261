"""The sentence that a comparison comes to."""

import pytest

from trainer.inference.evaluation.intervals import Difference
from trainer.inference.evaluation.verdict import Verdict, make_verdict

LOSS = Difference("loss", 50, 2.31, 1.07, -1.3, -1.1)


def score(low: float, high: float) -> Difference:
    return Difference("score", 50, 40.0, 40 + (low + high) / 2, low, high)


CASES = {
    "better on 41 of 50 rows (95% CI 69-90%), worse on 3, loss 2.31 to 1.07": (41, 6, 3, score(20, 30), "better"),
    "better on 20 of 20 rows (95% CI 84-100%), loss 2.31 to 1.07": (20, 0, 0, score(20, 30), "better"),
    "worse on 30 of 50 rows (95% CI 46-72%), better on 5, loss 2.31 to 1.07": (5, 15, 30, score(-9, -1), "worse"),
    "no clear difference: better on 2 of 50 rows, worse on 1, loss 2.31 to 1.07": (2, 47, 1, score(-1, 2), "unclear"),
    "too few rows to tell: better on 5 of 5 rows, worse on 0, loss 2.31 to 1.07": (5, 0, 0, score(20, 30), "unclear"),
    "too few rows to tell: better on 0 of 1 row, worse on 1, loss 2.31 to 1.07": (0, 0, 1, score(-3, -2), "unclear"),
}  # fmt: skip


@pytest.mark.parametrize("sentence", CASES)
def test_it_says_no_more_than_the_rows_show(sentence: str) -> None:
    better, same, worse, difference, kind = CASES[sentence]
    outcomes = [*["better"] * better, *["same"] * same, *["worse"] * worse]
    assert make_verdict(outcomes, [difference, LOSS]) == Verdict(kind, sentence, better, same, worse)
