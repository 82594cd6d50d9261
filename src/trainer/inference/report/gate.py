"""A gate for scripts and CI: whether a run is better than others, or at least not worse, by more than chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from trainer.inference.evaluation.significance import Kind
from trainer.inference.report.standings import results_of, standing, tuned_models
from trainer.runs import Run


class Gate(StrEnum):
    """What a run must be. `not-worse` is kept where nothing is clear, `better` is not."""

    better = "better"
    not_worse = "not-worse"


@dataclass(frozen=True, slots=True)
class Against:
    """What the run is beside its base, or beside another run."""

    name: str
    kind: Kind
    holds: bool


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a gate says of a run."""

    gate: Gate
    against: tuple[Against, ...]

    @property
    def holds(self) -> bool:
        return all(one.holds for one in self.against)

    def __str__(self) -> str:
        told = ", ".join(f"{one.kind} beside {one.name}" for one in self.against)
        return f"gate {self.gate} {'holds' if self.holds else 'does not hold'}: {told}"


def judge(gate: Gate, result: Mapping[str, Any], others: Sequence[tuple[str, Kind]] = ()) -> Judgement:
    """`result` is the run's comparison with its base, or the run that it came from; `others` are other runs."""
    verdict = result["verdict"]
    before = result["models"][verdict.get("against", "base")]
    first = "its base" if before == "base" else f"{before}, which it came from"
    return Judgement(
        gate, tuple(Against(name, found, _holds(gate, found)) for name, found in ((first, verdict["kind"]), *others))
    )


def judge_runs(gate: Gate, runs: Sequence[Run]) -> Judgement:
    """The first run, beside its base and each of the others, by what their reports hold. Raises: ConfigError."""
    results = results_of(runs, least=1)
    first, *others = tuned_models(runs, results)
    beside = [(other.name, standing(other, first).kind) for other in others]
    return judge(gate, results[0], beside)


def _holds(gate: Gate, kind: Kind) -> bool:
    return kind == "better" if gate is Gate.better else kind != "worse"
