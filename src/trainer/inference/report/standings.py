"""Several runs on the same held-out rows: which is the best, and whether that is more than chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.errors import ConfigError
from trainer.inference.evaluation.intervals import Difference, differences
from trainer.inference.evaluation.measures import MEASURES
from trainer.inference.evaluation.result import FORMAT
from trainer.inference.report.write import has_calls, tone
from trainer.runs import Run


@dataclass(frozen=True, slots=True)
class Contestant:
    """A model whose answers are compared: a run's, or its base's, which `key` tells in the run's result."""

    name: str
    key: str
    result: Mapping[str, Any]

    @property
    def sums(self) -> list[Mapping[str, tuple[float, float]]]:
        return [row["sums"][self.key] for row in self.result["rows"]]

    def mean(self, measure: str) -> float | None:
        """The measure over all rows, or None where no row has it."""
        pairs = [sums[measure] for sums in self.sums if measure in sums]
        return sum(total for total, _ in pairs) / sum(count for _, count in pairs) if pairs else None


def results_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What each run's comparison with its base found.

    Raises: ConfigError, where there are not two runs, one has no comparison, or their rows differ.
    """
    names = [run.name for run in runs]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise ConfigError(f"trainer compare: got {', '.join(map(repr, names))}, expected two or more different runs")
    results = [run.comparison() for run in runs]
    missing = [
        f"run {run.name!r}: has no comparison with its base, expected one; run: trainer evaluate {run.path}"
        for run, result in zip(runs, results, strict=True)
        if result.get("format") != FORMAT
    ]
    if missing:
        raise ConfigError(*missing)
    if len({result["rows_sha256"] for result in results}) > 1:
        raise ConfigError(
            *(f"run {result['run']!r}: its answers are to {_described(result)}" for result in results),
            "trainer compare: expected answers to the same rows; give each run the same ones: "
            "trainer evaluate RUN --rows FILE --max-rows N",
        )
    return results


def _described(result: Mapping[str, Any]) -> str:
    return f"{result['num_rows']:,} of {result['num_held_out']:,} rows of {', '.join(result['files'])}"


def contestants(runs: Sequence[Run], results: Sequence[Mapping[str, Any]]) -> list[Contestant]:
    """Each different base once, then the runs, the best first."""
    bases: dict[tuple[str, ...], Contestant] = {}
    for run, result in zip(runs, results, strict=True):
        base = run.manifest()["base"]
        identity = tuple(map(str, base.values()))
        bases.setdefault(identity, Contestant(f"{base['name']} (base)", "base", result))
    tuned = [Contestant(result["run"], "tuned", result) for result in results]
    return [*bases.values(), *sorted(tuned, key=lambda contestant: -(contestant.mean("score") or 0.0))]


def verdict(ranked: Sequence[Contestant], seed: int) -> str:
    """Whether the best run is better than the next one, and than its base, by more than chance."""
    best, second, *_ = [contestant for contestant in ranked if contestant.key == "tuned"]
    score = _score(second, best, seed)
    points = f"{score.tuned:.1f} to {score.base:.1f} points"
    if score.is_clear and score.low is not None and score.high is not None:
        sure = f"95% CI of the difference {score.low:+.1f} to {score.high:+.1f}"
        sentence = f"{best.name} is better than {second.name} ({points}, {sure})"
    else:
        sentence = f"no clear difference between {best.name} and {second.name} ({points})"
    before = _score(Contestant("", "base", best.result), best, seed)
    surely_better = before.is_clear and before.change > 0
    return sentence if surely_better else f"{sentence}; not even {best.name} is clearly better than its base"


def _score(first: Contestant, second: Contestant, seed: int) -> Difference:
    return next(found for found in differences(first.sums, second.sums, seed) if found.key == "score")


def table(ranked: Sequence[Contestant]) -> list[dict[str, Any]]:
    """A row a measure: each model's figure, and for runs the difference from their base."""
    rows = []
    for key, measure in MEASURES.items():
        means = [contestant.mean(key) for contestant in ranked]
        if any(mean is None for mean in means) or (key == "score" and not has_calls(ranked[0].result)):
            continue
        found = [_change(contestant, key) for contestant in ranked]
        cells = [
            {
                "value": measure.text(mean if mean is not None else 0.0),
                "change": "" if difference is None else measure.text(difference.change, sign=True),
                "tone": "" if difference is None else tone(difference),
            }
            for mean, difference in zip(means, found, strict=True)
        ]
        rows.append({"title": measure.title, "meaning": measure.meaning, "cells": cells})
    return rows


def _change(contestant: Contestant, key: str) -> Difference | None:
    if contestant.key == "base":
        return None
    return next(Difference(**values) for values in contestant.result["measures"] if values["key"] == key)


def notes(runs: Sequence[Run], results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader must know before comparing figures."""
    found = [f"{result['run']}: {note}" for result in results for note in result["notes"]]
    if len({(str(run.manifest()["base"]), run.manifest()["template_sha256"]) for run in runs}) > 1:
        found.append(
            "the runs have different bases or chat templates: loss and token accuracy count other tokens in each"
        )
    if len({result["settings"]["max_new_tokens"] for result in results}) > 1:
        limits = ", ".join(f"{result['run']} {result['settings']['max_new_tokens']:,}" for result in results)
        found.append(f"answers were cut off after different numbers of tokens: {limits}")
    return found
