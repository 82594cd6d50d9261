"""What a comparison comes to, in one sentence that says no more than the rows show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trainer.inference.evaluation.intervals import Difference, share_interval
from trainer.inference.evaluation.measures import Outcome

ROWS_NEEDED = 6  # fewer cannot show anything: even if all agree, chance would do that in 1 of 16 (sign test)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many rows became better, worse or neither, and whether the scores differ by more than chance."""

    kind: Literal["better", "worse", "unclear"]
    sentence: str
    better: int
    same: int
    worse: int


def make_verdict(outcomes: Sequence[Outcome], found: Sequence[Difference]) -> Verdict:
    """The sentence for the rows' outcomes and the differences over all of them."""
    better, same, worse = (outcomes.count(kind) for kind in ("better", "same", "worse"))
    measured = {difference.key: difference for difference in found}
    score, loss = measured["score"], measured.get("loss")  # a service that keeps its model tells no loss of a row
    kind: Literal["better", "worse", "unclear"] = "unclear"
    if len(outcomes) >= ROWS_NEEDED and score.is_clear:
        kind = "better" if score.change > 0 else "worse"
    losses = "" if loss is None else f", loss {loss.base:.2f} to {loss.tuned:.2f}"
    sentence = _counted(kind, better, worse, len(outcomes)) + losses
    return Verdict(kind, sentence, better, same, worse)


def _counted(kind: str, better: int, worse: int, total: int) -> str:
    rows = f"{total:,} row{'' if total == 1 else 's'}"
    if kind == "unclear":
        opening = "too few rows to tell" if total < ROWS_NEEDED else "no clear difference"
        return f"{opening}: better on {better:,} of {rows}, worse on {worse:,}"
    count, other, others = (better, "worse", worse) if kind == "better" else (worse, "better", better)
    low, high = share_interval(count, total)
    rest = f", {other} on {others:,}" if others else ""
    return f"{kind} on {count:,} of {rows} (95% CI {100 * low:.0f}-{100 * high:.0f}%){rest}"
