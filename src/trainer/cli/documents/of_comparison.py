"""What comparisons found, as documents."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.cli.documents import verdicts

if TYPE_CHECKING:
    from trainer.inference.report.standings import Contestant, Judgement


def evaluated(result: Mapping[str, Any], page: Path, judgement: "Judgement | None") -> verdicts.Evaluate:
    """The result of `trainer evaluate`."""
    verdict = verdicts.Verdict.of(result)
    assert verdict is not None  # it was just made
    return verdicts.Evaluate(
        run=result["run"],
        verdict=verdict,
        measures=list(map(_measure, result["measures"])),
        files=list(result["files"]),
        num_rows=result["num_rows"],
        num_held_out=result["num_held_out"],
        notes=list(result["notes"]),
        page=str(page),
        is_the_runs_report=page.stem == "report",
        gate=_gate(judgement),
    )


def compared(
    sentence: str,
    notes: Sequence[str],
    ranked: "Sequence[Contestant]",
    page: Path | None,
    judgement: "Judgement | None",
) -> verdicts.Compare:
    """The result of `trainer compare`."""
    from trainer.inference.evaluation.measures import MEASURES

    models = [
        verdicts.Contestant(
            name=model.name, is_base=model.key == "base", measures={key: model.mean(key) for key in MEASURES}
        )
        for model in ranked
    ]
    return verdicts.Compare(
        sentence=sentence,
        notes=list(notes),
        models=models,
        page=None if page is None else str(page),
        gate=_gate(judgement),
    )


def _measure(values: Mapping[str, Any]) -> verdicts.Measure:
    from trainer.inference.evaluation.measures import MEASURES

    names = ("key", "num_rows", "base", "tuned", "low", "high")
    about = MEASURES[values["key"]]
    told = {"title": about.title, "meaning": about.meaning, "better": about.better}
    return verdicts.Measure.model_validate({name: values[name] for name in names} | told)


def _gate(judgement: "Judgement | None") -> verdicts.Gate | None:
    if judgement is None:
        return None
    against = [verdicts.Against(name=one.name, kind=one.kind, holds=one.holds) for one in judgement.against]
    return verdicts.Gate(gate=judgement.gate.value, holds=judgement.holds, against=against)
