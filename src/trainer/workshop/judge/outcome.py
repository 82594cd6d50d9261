"""Outcome of a judge's opinions as report.json holds it: counts, win rate, interval, and a sentence for people."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from trainer.data.quoting import counted
from trainer.inference.evaluation.significance import LEVEL, Kind, groups, moved, share_interval, sign_test
from trainer.runs.run import now
from trainer.workshop.judge.question import Judged

POINTS = {"better": 1.0, "same": 0.5, "worse": 0.0}
STEPS = {"better": 1.0, "same": 0.0, "worse": -1.0}


def make_outcome(
    result: Mapping[str, Any], judged: Sequence[Judged], model: str, endpoint: str, cost: float | None
) -> dict[str, Any]:
    """`judged` are all pairs of the report `result`, of which one or more did not fail."""
    valid = [one for one in judged if not one.failure]
    outcomes = [one.outcome for one in valid]
    of_rows = groups(result["rows"])
    of_pairs = [of_rows[one.pair.row] for one in valid]
    interval = share_interval([(POINTS[outcome], 1.0) for outcome in outcomes], of_pairs)
    up, down = moved([STEPS[outcome] for outcome in outcomes], of_pairs)
    kind: Kind = "unclear" if sign_test(up, down) >= LEVEL else "better" if up > down else "worse"
    counts = {
        "pairs": len(judged),
        "better": outcomes.count("better"),
        "same": outcomes.count("same"),
        "worse": outcomes.count("worse"),
        "alike": sum(one.pair.is_alike for one in valid),
        "swayed": sum(one.is_swayed for one in valid),
        "failed": len(judged) - len(valid),
    }
    rate = sum(POINTS[outcome] for outcome in outcomes) / len(valid)
    against = result["models"][result["verdict"]["against"]]
    return {
        "created_at": now(),
        "model": model,
        "endpoint": endpoint,
        "kind": kind,
        "sentence": _sentence(counts, rate, interval, kind, model, against),
        "remarks": _remarks(counts),
        "against": against,
        **counts,
        "win_rate": rate,
        "interval": interval,
        "cost": cost,
        "answers": [_shown(one) for one in judged],
    }


def _sentence(
    counts: Mapping[str, int], rate: float, interval: tuple[float, float], kind: Kind, model: str, against: str
) -> str:
    low, high = (100 * end for end in interval)
    certainty = {"better": "better beyond chance", "worse": "worse beyond chance", "unclear": "no clear difference"}
    return (
        f"the judge {model} prefers the tuned model in {counts['better']:,} of "
        f"{counted(counts['pairs'] - counts['failed'], 'pair')} of answers and {against} in {counts['worse']:,}, "
        f"{counts['same']:,} tied: win rate {100 * rate:.0f}% (95% CI {low:.0f}-{high:.0f}%, a tie is half a win), "
        f"{certainty[kind]}"
    )


def _remarks(counts: Mapping[str, int]) -> list[str]:
    asked = counts["pairs"] - counts["alike"] - counts["failed"]
    told = {
        f"{counted(counts['alike'], 'pair')} of equal answers are ties and were not asked about": counts["alike"],
        f"of the {asked:,} others, {counts['swayed']:,} are ties as the order of the answers changed the judge's "
        "opinion": counts["swayed"],
        f"{counted(counts['failed'], 'pair')} could not be judged and count nowhere": counts["failed"],
    }
    return [words for words, count in told.items() if count]


def _shown(one: Judged) -> dict[str, Any]:
    return {
        "row": one.pair.row,
        "message": one.pair.message,
        "outcome": None if one.failure else one.outcome,
        "opinions": [asdict(opinion) for opinion in one.opinions],
        "failure": one.failure or None,
    }
