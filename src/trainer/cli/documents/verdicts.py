"""What a comparison has found, as documents tell it; one that an earlier version wrote knows less."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from trainer.cli.documents.document import Part


class Counts(Part):
    """A count of each model's answers."""

    base: int
    """Before fine-tuning."""
    tuned: int
    """After it."""


class Interval(Part):
    """A 95% confidence interval."""

    low: float
    """Its lower end."""
    high: float
    """Its upper end."""


class Verdict(Part):
    """Whether the tuned model is better than its base on held-out rows."""

    kind: Literal["better", "worse", "unclear"]
    """better or worse where the difference is beyond chance, else unclear."""
    sentence: str
    """The same for people, with its figures."""
    remarks: list[str]
    """What one must know to believe it as far as it goes."""
    answers: int | None
    """Answers compared; null in a report of an earlier version, as with right, right_interval and unended."""
    right: Counts | None
    """Answers that are right or nearly right."""
    right_interval: Interval | None
    """Of the tuned model's share of right answers."""
    unended: Counts | None
    """Answers that went on until they were cut off."""
    better: int
    """Rows on which the tuned model is better beyond noise."""
    same: int
    """Rows on which it is neither."""
    worse: int
    """Rows on which it is worse."""

    @classmethod
    def of(cls, comparison: Mapping[str, Any]) -> Self | None:
        """From what report.json holds; None where that is nothing, or damaged."""
        verdict = comparison.get("verdict") or {}
        values = {name: verdict.get(name) for name in cls.model_fields} | {"remarks": verdict.get("remarks") or []}
        try:
            if interval := values["right_interval"]:
                values["right_interval"] = {"low": interval[0], "high": interval[1]}
            return cls.model_validate(values)
        except (ValueError, LookupError, TypeError):
            return None
