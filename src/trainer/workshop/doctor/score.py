"""One score of each row, and the reasons for it in words: larger deserves a look sooner."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.training.dataset import Row
from trainer.workshop.doctor.losses import RowLosses
from trainer.workshop.doctor.neighbours import OddAnswer

STANDS_OUT = 2.0  # deviations from the median
MOST = 10.0  # deviations that count, so that no measure hides the other
ODD = 3.0  # deviations that an answer against all its neighbors is worth
KNOWN = 0.25  # of the median loss before training
KNOWN_SCORE = 0.5  # little: such a row is seldom wrong, and seldom needed
LEARNED_LITTLE = 0.25  # of the median share by which training lowered the loss
LEAST_SPREAD = 0.05  # nats; where all rows are alike, smaller differences are no reason
SPREAD = 1.4826  # makes the median absolute deviation a standard deviation, where a measure is normal


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row with its numbers; `hard` and `unexplained` are deviations from the median row, 0 or more."""

    row: Row
    losses: RowLosses
    hard: float
    unexplained: float
    odd: OddAnswer | None
    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Medians:
    """The median row's losses."""

    before: float
    after: float


def medians_of(losses: Sequence[RowLosses]) -> Medians:
    """The medians over one row or more."""
    return Medians(statistics.median(one.before for one in losses), statistics.median(one.after for one in losses))


def suspects(rows: Sequence[Row], losses: Sequence[RowLosses], odd: Mapping[int, OddAnswer]) -> list[Suspect]:
    """All rows, the most suspect first; equal ones as in their files."""
    typical = medians_of(losses)
    hard = _deviations([one.after for one in losses])
    unexplained = _unexplained(losses)
    usual_drop = statistics.median(_drop(one) for one in losses)
    found = []
    for number, (row, one) in enumerate(zip(rows, losses, strict=True)):
        known = one.before < KNOWN * typical.before
        against = odd.get(number)
        score = hard[number] + unexplained[number] + KNOWN_SCORE * known
        score += 0 if against is None else ODD * against.strength
        reasons = []
        if hard[number] >= STANDS_OUT:
            reasons.append(f"stays hard: loss {one.after:.2f} after training, the median row has {typical.after:.2f}")
        if one.elsewhere is not None and unexplained[number] >= STANDS_OUT:
            reasons.append(
                f"answer not explained by its question: loss {one.after:.2f}, behind other questions "
                f"{one.elsewhere:.2f}"
            )
        if against is not None:
            reasons.append(
                f"answers otherwise than {rows[against.other].conversation.place}, which asks nearly the same"
            )
        if _drop(one) < LEARNED_LITTLE * usual_drop and not known:
            reasons.append(f"learned little: loss {one.before:.2f} before and {one.after:.2f} after training")
        if known:
            reasons.append(f"known before: loss {one.before:.2f}, the median row has {typical.before:.2f}")
        found.append(Suspect(row, one, hard[number], unexplained[number], against, score, tuple(reasons)))
    return sorted(found, key=lambda suspect: -suspect.score)


def _drop(losses: RowLosses) -> float:
    """Share of the loss that training took away."""
    return 1 - losses.after / losses.before if losses.before else 0.0


def _unexplained(losses: Sequence[RowLosses]) -> list[float]:
    """Deviations of the gain below the median one; 0 for a row without, of which nothing is known."""
    gains = [one.gain for one in losses]
    known = iter(_deviations([-gain for gain in gains if gain is not None]))
    return [0.0 if gain is None else next(known) for gain in gains]


def _deviations(values: Sequence[float]) -> list[float]:
    """Robust standard deviations above the median, from 0 to MOST."""
    if not values:
        return []
    middle = statistics.median(values)
    spread = SPREAD * statistics.median(abs(value - middle) for value in values)
    return [min(max((value - middle) / max(spread, LEAST_SPREAD), 0.0), MOST) for value in values]
