"""Two models of which neither is better are told apart in one comparison of twenty at most.

Both are drawn from one distribution, many times with a fixed seed, so that each verdict other than "unclear" is wrong.
"""

import random
from typing import Any

import pytest

from trainer.inference.evaluation.measures import Outcome, outcome
from trainer.inference.evaluation.significance import Distinct
from trainer.inference.evaluation.verdict import make_verdict
from trainer.inference.report.standings import Contestant, standing

pytestmark = pytest.mark.apart

REPEATS = 1000
NAMES = {"base": "base", "tuned": "tuned"}


def drawn(draw: random.Random) -> dict[str, tuple[float, float]]:
    """One model's answer to one row."""
    right = draw.random() < 0.3
    return {"right": (float(right), 1.0), "score": (100.0 if right else draw.uniform(0, 90), 1.0), "ended": (1.0, 1.0)}


def became(before: Any, after: Any) -> Outcome:
    return outcome(*((before[key][0], after[key][0]) for key in ("right", "score")), 10.0)


@pytest.mark.parametrize("num_rows", [20, 60])
def test_a_report_finds_no_difference_where_there_is_none(num_rows: int) -> None:
    draw, found = random.Random(5), 0
    for _ in range(REPEATS):
        sums = {name: [drawn(draw) for _ in range(num_rows)] for name in NAMES}
        outcomes = [became(*pair) for pair in zip(sums["base"], sums["tuned"], strict=True)]
        distinct = Distinct(num_rows, num_rows, 0, num_rows)
        verdict = make_verdict(outcomes, sums, "base", NAMES, [], range(num_rows), distinct, 64)
        found += verdict.kind != "unclear"
    assert found <= 0.05 * REPEATS


@pytest.mark.parametrize("num_rows", [8, 20])
def test_a_gate_finds_no_difference_where_there_is_none(num_rows: int) -> None:
    draw, found = random.Random(5), 0
    for _ in range(REPEATS // 4 if num_rows > 8 else REPEATS):
        rows = [
            {"sums": {name: drawn(draw) for name in NAMES}, "messages": [{"content": str(n)}], "tools": [],
             "answers": [], "noise": 10.0}
            for n in range(num_rows)
        ]  # fmt: skip
        for row in rows:
            row["score"] = {name: sums["score"][0] for name, sums in row["sums"].items()}
        first, second = (Contestant(name, name, {"rows": rows}) for name in NAMES)
        found += standing(first, second).kind != "unclear"
    assert found <= 0.05 * (REPEATS // 4 if num_rows > 8 else REPEATS)
