"""Documents of comparisons, built from their results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from trainer.cli.documents.document import Document, Part

if TYPE_CHECKING:
    from trainer.inference.report import standings


class Counts(Part):
    """A count of each model's answers."""

    base: int
    """Before fine-tuning."""
    start: int | None
    """Of the run that this one trained further; null where it began anew."""
    tuned: int
    """After it."""


class Interval(Part):
    """A 95% confidence interval."""

    low: float
    """Its lower end."""
    high: float
    """Its upper end."""


class Distinct(Part):
    """Different observations among the rows."""

    rows: int
    """Rows that differ."""
    answers: int
    """Different answers of more than a few words, or calls with arguments."""
    seen: int | None
    """Those of them that were trained on; null where a training file is gone."""
    independent: int
    """Observations as the intervals count them: rows that expect the same answer are one."""


class Verdict(Part):
    """Comparison of the tuned model with its base, or with the run that it came from, on held-out rows."""

    kind: Literal["better", "worse", "unclear"]
    """better or worse where the difference is beyond chance, else unclear."""
    sentence: str
    """The same for people, with its figures."""
    against: Literal["base", "start"]
    """The other side: the base, or the start, where it trained another run's adapter further."""
    remarks: list[str]
    """Limits of its evidence, each in a sentence."""
    answers: int | None
    """Answers compared; null in a report of an earlier version, as with right, right_interval, unended and distinct."""
    right: Counts | None
    """Answers that are right or nearly right."""
    right_interval: Interval | None
    """Of the tuned model's share of right answers."""
    unended: Counts | None
    """Answers that were cut off before their end."""
    better: int
    """Rows on which the tuned model is better beyond noise."""
    same: int
    """Rows on which it is neither."""
    worse: int
    """Rows on which it is worse."""
    distinct: Distinct | None
    """Different observations among the rows."""

    @classmethod
    def of(cls, comparison: Mapping[str, Any]) -> Self | None:
        """From what report.json holds; None where that is nothing, or damaged."""
        verdict = comparison.get("verdict") or {}
        values = {name: verdict.get(name) for name in cls.model_fields}
        values |= {"remarks": verdict.get("remarks") or [], "against": verdict.get("against", "base")}
        try:
            values |= {key: {"start": None, **counts} for key in ("right", "unended") if (counts := values[key])}
            if interval := values["right_interval"]:
                values["right_interval"] = {"low": interval[0], "high": interval[1]}
            return cls.model_validate(values)
        except (ValueError, LookupError, TypeError):
            return None


class Against(Part):
    """Verdict on a run beside another model."""

    name: str
    """`its base`, or the other run."""
    kind: Literal["better", "worse", "unclear"]
    """better or worse where the difference is beyond chance, else unclear."""
    holds: bool
    """True where the gate holds there."""


class Gate(Part):
    """Gate of --gate and its outcome. Where it does not hold, the exit code is 3."""

    gate: Literal["better", "not-worse"]
    """The requirement: better, or anything but worse."""
    holds: bool
    """True where it holds everywhere."""
    against: list[Against]
    """Beside the base, and with `trainer compare` beside each other run."""


class Judge(Part):
    """Preferences of a model as the judge between the tuned model's answers and those before tuning."""

    model: str
    """The judge."""
    endpoint: str
    """Its address."""
    against: str
    """The other side: base, or the run that was trained further."""
    kind: Literal["better", "worse", "unclear"]
    """better or worse where the preferences are beyond chance, else unclear."""
    sentence: str
    """The same for people, with its figures."""
    remarks: list[str]
    """Limits of its evidence, each in a sentence."""
    pairs: int
    """Pairs of answers."""
    better: int
    """Pairs in which it prefers the tuned answer, in both orders."""
    same: int
    """Ties: it prefers neither, or its opinion changes with the order, or the answers are equal."""
    worse: int
    """Pairs in which it prefers the other answer, in both orders."""
    alike: int
    """Ties with equal answers, which were not asked about."""
    swayed: int
    """Ties as the order changed its opinion."""
    failed: int
    """Pairs without an opinion, which count nowhere."""
    win_rate: float
    """Share of the pairs that the tuned model wins; a tie is half a win."""
    interval: Interval
    """Its 95% interval."""
    cost: float | None
    """The cost in USD of judging this run, now and before; null where no price is known."""

    @classmethod
    def of(cls, judge: Mapping[str, Any]) -> Self:
        """From what report.json holds."""
        low, high = judge["interval"]
        values = {name: judge[name] for name in cls.model_fields}
        return cls.model_validate(values | {"interval": {"low": low, "high": high}})


class Measure(Part):
    """A figure of both models over the same rows."""

    key: str
    """Its name, such as right, score or loss."""
    title: str
    """Its name for people."""
    meaning: str
    """The quantity that it counts."""
    better: Literal["higher", "lower"] | None
    """The better direction; null where neither is."""
    num_rows: int
    """Rows that have it."""
    base: float | None
    """Of the model that the verdict is against."""
    tuned: float | None
    """After fine-tuning."""
    low: float | None
    """The lower end of the 95% interval of the difference; null where one row alone has the measure."""
    high: float | None
    """Its upper end."""


class Evaluate(Document):
    """The tuned model beside its base on held-out rows; each row with its answers is in the report's JSON file."""

    document: Literal["evaluate"] = "evaluate"
    """The command."""
    run: str
    """The run's name."""
    verdict: Verdict
    """Its verdict."""
    measures: list[Measure]
    """The figures."""
    files: list[str]
    """The files of the rows."""
    num_rows: int
    """Rows compared."""
    num_held_out: int
    """Rows that there are."""
    notes: list[str]
    """Remarks on reading the figures."""
    page: str
    """The report; beside it lies the same as .json, with every row."""
    is_the_runs_report: bool
    """True where it is now the report that `trainer show` and `trainer compare` read."""
    gate: Gate | None
    """Outcome of --gate; null without it."""


class Contestant(Part):
    """A model of a comparison."""

    name: str
    """The run's name, or the base's."""
    is_base: bool
    """True for a base."""
    measures: dict[str, float | None]
    """Its figures over all rows, by the keys of `trainer evaluate RUN`."""


class Compare(Document):
    """Several runs and their bases on the same held-out rows."""

    document: Literal["compare"] = "compare"
    """The command."""
    sentence: str
    """The best of them, and if that is beyond chance."""
    notes: list[str]
    """Limits of its evidence, each in a sentence."""
    models: list[Contestant]
    """The bases, then the runs, the best first."""
    page: str | None
    """The page; null for one run, whose page is its report."""
    gate: Gate | None
    """Outcome of --gate for the first run; null without it."""
    judge: Judge | None
    """Preferences of the model of --judge; null without it."""


def evaluated(result: Mapping[str, Any], page: Path, judgement: "standings.Judgement | None") -> Evaluate:
    """The result of `trainer evaluate`."""
    verdict = Verdict.of(result)
    assert verdict is not None  # it was just made
    return Evaluate(
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
    ranked: "Sequence[standings.Contestant]",
    page: Path | None,
    judgement: "standings.Judgement | None",
    judge: Mapping[str, Any] | None,
) -> Compare:
    """The result of `trainer compare`."""
    from trainer.inference.evaluation.measures import MEASURES

    models = [
        Contestant(name=model.name, is_base=model.key == "base", measures={key: model.mean(key) for key in MEASURES})
        for model in ranked
    ]
    return Compare(
        sentence=sentence,
        notes=list(notes),
        models=models,
        page=None if page is None else str(page),
        gate=_gate(judgement),
        judge=None if judge is None else Judge.of(judge),
    )


def _measure(values: Mapping[str, Any]) -> Measure:
    from trainer.inference.evaluation.measures import MEASURES

    names = ("key", "num_rows", "base", "tuned", "low", "high")
    about = MEASURES[values["key"]]
    words = {"title": about.title, "meaning": about.meaning, "better": about.better}
    return Measure.model_validate({name: values[name] for name in names} | words)


def _gate(judgement: "standings.Judgement | None") -> Gate | None:
    if judgement is None:
        return None
    against = [Against(name=one.name, kind=one.kind, holds=one.holds) for one in judgement.against]
    return Gate(gate=judgement.gate.value, holds=judgement.holds, against=against)
