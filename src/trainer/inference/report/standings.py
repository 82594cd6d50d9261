"""Several runs on the same held-out rows: which is the best, whether that is more than chance, and what a gate says.

`write_comparison` puts them and their bases side by side on one page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from trainer import __version__
from trainer.errors import ConfigError
from trainer.inference.evaluation.measures import BAR, MEASURES, outcome
from trainer.inference.evaluation.result import readable
from trainer.inference.evaluation.significance import (
    Decision,
    Difference,
    Kind,
    decide,
    differences,
    groups,
    share_interval,
)
from trainer.inference.report.page import NUM_OPEN, NUM_SHOWN, capitalized, render_page, row_view, trusted
from trainer.inference.report.plots import runs_plot
from trainer.inference.report.run_page import has_calls, tone
from trainer.runs import Run, files
from trainer.runs.lifecycle import note_gate
from trainer.runs.manifest import PinnedBase


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


def results_of(runs: Sequence[Run], least: int = 2) -> list[dict[str, Any]]:
    """Result of each run's comparison with its base.

    Raises: ConfigError, where there are not `least` runs, one has no comparison, or their rows differ.
    """
    names = [run.name for run in runs]
    if len(set(names)) < least or len(set(names)) < len(names):
        raise ConfigError(
            f"trainer compare: got {', '.join(map(repr, names))}, "
            "expected two or more different runs, or one with --gate or --judge"
        )
    found = [readable(run.comparison(), run.report / "report.json") for run in runs]
    missing = [
        f"run {run.name!r}: has no comparison with its base, expected one; run: trainer evaluate {run.path}"
        for run, result in zip(runs, found, strict=True)
        if result is None
    ]
    if missing:
        raise ConfigError(*missing)
    results = [result for result in found if result is not None]
    if len({result["rows_sha256"] for result in results}) > 1:
        raise ConfigError(
            *(
                f"run {run.name!r}: its answers are to {_described(result)}"
                for run, result in zip(runs, results, strict=True)
            ),
            "trainer compare: expected answers to the same rows; give each run the same ones: "
            "trainer evaluate RUN --rows FILE --max-rows N",
        )
    return results


def _described(result: Mapping[str, Any]) -> str:
    return f"{result['num_rows']:,} of {result['num_held_out']:,} rows of {', '.join(result['files'])}"


def contestants(runs: Sequence[Run], results: Sequence[Mapping[str, Any]]) -> list[Contestant]:
    """Each different base once, then the runs, the best first."""
    return [*_bases(runs, results), *sorted(tuned_models(runs, results), key=_rank, reverse=True)]


def tuned_models(runs: Sequence[Run], results: Sequence[Mapping[str, Any]]) -> list[Contestant]:
    """The runs' models in the order of `runs`. A copied folder still holds the name that its report was written for."""
    return [Contestant(run.name, "tuned", result) for run, result in zip(runs, results, strict=True)]


def _bases(runs: Sequence[Run], results: Sequence[Mapping[str, Any]]) -> list[Contestant]:
    """Bases that only their weights tell apart are named by those: a name stands for one column."""
    found: dict[PinnedBase, Mapping[str, Any]] = {}
    for run, result in zip(runs, results, strict=True):
        found.setdefault(run.manifest().base, result)
    names = [base.name for base in found]
    return [
        Contestant(f"{base.name if names.count(base.name) == 1 else _pinned(base)} (base)", "base", result)
        for base, result in found.items()
    ]


def _pinned(base: PinnedBase) -> str:
    return f"{base.name}@{str(base.revision or base.weights_sha256)[:16]}"


def _rank(contestant: Contestant) -> tuple[float, float]:
    return contestant.mean("right") or 0.0, contestant.mean("score") or 0.0


def verdict(ranked: Sequence[Contestant], seed: int) -> str:
    """Sentence on the best run: if it is better than the next one, and than its base, beyond chance."""
    best, second, found = leaders(ranked)
    counts = _counts(best, second)
    match found.by:
        case "right":
            words = f"{best.name} is better than {second.name}: {counts}"
        case "score":
            score = _score(second, best, seed)
            words = (
                f"{best.name} comes closer to the references than {second.name}, score {score.tuned:.1f} and "
                f"{score.base:.1f} ({_sure(score)}); it is not clearly right more often: {counts}"
            )
        case None:
            words = f"no clear difference between {best.name} and {second.name}: {counts}"
    before = standing(Contestant("", "base", best.result), best)
    return words if before.kind == "better" else f"{words}; not even {best.name} is clearly better than its base"


def leaders(ranked: Sequence[Contestant]) -> tuple[Contestant, Contestant, Decision]:
    """The best run, the next one, and the decision between them."""
    best, second, *_ = [contestant for contestant in ranked if contestant.key == "tuned"]
    found = standing(second, best)
    return (second, best, found) if found.kind == "worse" else (best, second, found)


def standing(first: Contestant, second: Contestant) -> Decision:
    """Rank of the second model beside the first one."""
    pairs = zip(first.result["rows"], second.result["rows"], strict=True)
    outcomes = [
        outcome(
            (before["sums"][first.key]["right"][0], after["sums"][second.key]["right"][0]),
            (before["score"][first.key], after["score"][second.key]),
            before["noise"],
        )
        for before, after in pairs
    ]
    return decide(first.sums, second.sums, outcomes, groups(first.result["rows"]))


def _counts(best: Contestant, second: Contestant) -> str:
    """Both counts, each with how sure its share is."""
    parts = []
    for contestant in (best, second):
        counted = [sums["right"] for sums in contestant.sums]
        hits, tries = (round(sum(values)) for values in zip(*counted, strict=True))
        low, high = share_interval(counted, groups(contestant.result["rows"]))
        parts.append(f"{hits:,} of {tries:,} (95% CI {100 * low:.0f}-{100 * high:.0f}%)")
    return f"{' and '.join(parts)} answers right or nearly right"


def _sure(difference: Difference) -> str:
    return f"95% CI of the difference {difference.low:+.1f} to {difference.high:+.1f}"


def _score(first: Contestant, second: Contestant, seed: int) -> Difference:
    """Difference in how close each comes to the references."""
    found = differences(first.sums, second.sums, groups(first.result["rows"]), seed)
    return next(difference for difference in found if difference.key == "score")


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
    measures = contestant.result["measures_from_base"] or contestant.result["measures"]
    found = (Difference(**values) for values in measures if values["key"] == key)
    return next(found, None)  # a report of an earlier version lacks some


def notes(runs: Sequence[Run], results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Remarks that a reader needs before comparing figures."""
    by_name = {run.name: result for run, result in zip(runs, results, strict=True)}
    found = [f"{name}: {note}" for name, result in by_name.items() for note in result["notes"]]
    if len({(run.manifest().base, run.manifest().template_sha256) for run in runs}) > 1:
        found.append(
            "the runs have different bases or chat templates: loss and token accuracy count other tokens in each"
        )
    if len({result["settings"]["max_new_tokens"] for result in results}) > 1:
        limits = ", ".join(f"{name} {result['settings']['max_new_tokens']:,}" for name, result in by_name.items())
        found.append(f"answers were cut off after different numbers of tokens: {limits}")
    return found


# A gate


class Gate(StrEnum):
    """Requirement for a run. `not-worse` holds where nothing is clear, `better` does not."""

    better = "better"
    not_worse = "not-worse"


@dataclass(frozen=True, slots=True)
class Against:
    """Rank of the run beside its base, or beside another run."""

    name: str
    kind: Kind
    holds: bool


@dataclass(frozen=True, slots=True)
class Judgement:
    """Outcome of a gate for a run."""

    gate: Gate
    against: tuple[Against, ...]

    @property
    def holds(self) -> bool:
        return all(one.holds for one in self.against)

    def __str__(self) -> str:
        words = ", ".join(f"{one.kind} beside {one.name}" for one in self.against)
        return f"gate {self.gate} {'holds' if self.holds else 'does not hold'}: {words}"


def judge(gate: Gate, result: Mapping[str, Any], others: Sequence[tuple[str, Kind]] = ()) -> Judgement:
    """`result` is the run's comparison with its base, or the run that it came from; `others` are other runs."""
    verdict = result["verdict"]
    before = result["models"][verdict.get("against", "base")]
    first = "its base" if before == "base" else f"{before}, which it came from"
    return Judgement(
        gate, tuple(Against(name, found, _holds(gate, found)) for name, found in ((first, verdict["kind"]), *others))
    )


def settle_gate(run: Run, result: Mapping[str, Any]) -> None:
    """Note in a run's status what its own comparison says of its gate; nothing where it has none."""
    if (wanted := run.config().evaluation.gate) is not None:
        judgement = judge(Gate(wanted), result)
        note_gate(run, judgement.holds, str(judgement))


def judge_runs(gate: Gate, runs: Sequence[Run]) -> Judgement:
    """The first run, beside its base and each of the others, by what their reports hold. Raises: ConfigError."""
    results = results_of(runs, least=1)
    first, *others = tuned_models(runs, results)
    beside = [(other.name, standing(other, first).kind) for other in others]
    return judge(gate, results[0], beside)


def _holds(gate: Gate, kind: Kind) -> bool:
    return kind == "better" if gate is Gate.better else kind != "worse"


# The page


def write_comparison(runs: Sequence[Run], out: Path) -> tuple[str, list[Contestant]]:
    """Write the page; returns the verdict and the models in its order.

    Raises: ConfigError.
    """
    results = results_of(runs)
    ranked = contestants(runs, results)
    sentence = verdict(ranked, results[0]["settings"]["seed"])
    rows = sorted(_merged(ranked), key=lambda row: min(row["score"].values()) - max(row["score"].values()))
    names = [contestant.name for contestant in ranked]
    plot = runs_plot({run.name: run.results() for run in runs}, "valid_loss", "held-out loss by step")
    page = render_page(
        "comparison",
        " and ".join(run.name for run in runs),
        sentence=sentence,
        bar=BAR,
        names=names,
        table=table(ranked),
        notes=[capitalized(note) for note in notes(runs, results)],
        files=", ".join(results[0]["files"]),
        num_rows=len(rows),
        curves=trusted(plot) if plot else None,
        rows=[row_view(row, names, mark_reference=False) for row in rows[:NUM_SHOWN]],
        num_open=min(NUM_OPEN, len(rows)),
        num_hidden=max(0, len(rows) - NUM_SHOWN),
        version=__version__,
    )
    files.write_page("--out", out, page)
    return sentence, ranked


def _merged(ranked: Sequence[Contestant]) -> list[dict[str, Any]]:
    """The rows with the answers of all models, by their names."""
    merged = []
    for number, row in enumerate(ranked[0].result["rows"]):
        same = [(contestant.name, contestant.key, contestant.result["rows"][number]) for contestant in ranked]
        answers = [
            {"message": answer["message"], "reference": answer["reference"]}
            | {name: other["answers"][position][key] for name, key, other in same}
            for position, answer in enumerate(row["answers"])
        ]
        scores = {name: other["score"][key] for name, key, other in same}
        merged.append(
            {**{key: row[key] for key in ("place", "messages", "tools")}, "score": scores, "answers": answers}
        )
    return merged
