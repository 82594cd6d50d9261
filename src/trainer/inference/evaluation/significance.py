"""Certainty of a figure or a difference, where rows with the same answer are no independent observations.

Who knows an answer for one row knows it for the others. A short answer, such as a label, is a choice that each question
makes anew, so that such rows are one observation only where they ask the same.

Every figure is a ratio of two totals over the rows. Whole groups of such rows are drawn with replacement, many times,
base and tuned together; the interval holds the middle 95% of the differences between their ratios: the pairs cluster
bootstrap of Cameron, Gelbach and Miller, Bootstrap-Based Improvements for Inference with Clustered Errors, Review of
Economics and Statistics 90 (2008), section III. What is better or worse, `decide` says alone.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainer.data.conversations import Message
from trainer.data.read.rows import FileReader
from trainer.data.render.rendering import as_object
from trainer.inference.evaluation.measures import MEASURES, Outcome, Sums, folded, is_long
from trainer.inference.thoughts import parted
from trainer.inference.tool_calls import whole_numbers
from trainer.runs.intervals import CONFIDENCE, wilson_of_share

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, numpy.dtype[Any]]

Kind = Literal["better", "worse", "unclear"]

STEPS: dict[Outcome, int] = {"better": 1, "same": 0, "worse": -1}
RESAMPLES = 10_000
BLOCK = 2_000_000  # numbers drawn at a time
LEVEL = (1 - CONFIDENCE) / 2  # of each of the two tests of `decide`: together they err in 5 of 100 at most
GROUPS_NEEDED = 7  # fewer cannot show anything: even if all agree, chance would do that in 1 of 32 (sign test)


@dataclass(frozen=True, slots=True)
class Distinct:
    """Of the rows compared. `seen` counts the `answers` that stand among the trained ones; None where nobody knows."""

    rows: int
    answers: int  # of more than a few words, or calls with arguments
    seen: int | None
    independent: int  # what the intervals count as one observation each


def count_distinct(rows: Sequence[Mapping[str, Any]], trained: Sequence[str] | None) -> Distinct:
    """`rows` as report.json has them; `trained` are the files that were trained on, None where one is gone."""
    answers = {key for row in rows for key in _long_answers(row)}
    seen = None if trained is None else len(_among(answers, trained))
    return Distinct(len(set(map(_conversation, rows))), len(answers), seen, len(set(groups(rows))))


def groups(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """For each row the number of its group: rows whose longest answer is the same, or that are the same."""
    numbers: dict[str, int] = {}
    return [
        numbers.setdefault(max(_long_answers(row), key=len, default=_conversation(row)), len(numbers)) for row in rows
    ]


def _long_answers(row: Mapping[str, Any]) -> list[str]:
    """Keys that distinguish the answers of a row, of those that are no choice among a few."""
    messages = [row["messages"][answer["message"]] for answer in row["answers"]]
    return [key for message in messages if (key := _key(message)) is not None]


def _key(message: Mapping[str, Any]) -> str | None:
    text = parted(message.get("content") or "")[1]
    calls = sorted(_call(call["function"]) for call in message.get("tool_calls") or ())
    if any(arguments not in ("", "{}") for _, arguments in calls):
        return json.dumps([folded(text), calls])
    return json.dumps([folded(text), []]) if is_long(text) else None


def _call(function: Mapping[str, Any]) -> tuple[str, str]:
    try:
        arguments = json.dumps(whole_numbers(json.loads(function["arguments"])), sort_keys=True)
    except (ValueError, TypeError, RecursionError):
        arguments = str(function["arguments"])
    return str(function["name"]), arguments


def _conversation(row: Mapping[str, Any]) -> str:
    return json.dumps([row["messages"], row["tools"]], sort_keys=True)


def _among(answers: set[str], files: Iterable[str]) -> set[str]:
    """Those of the answers that a row of the files trains, whatever it asks."""
    found: set[str] = set()
    for file in files:
        for row in FileReader(Path(file), max_findings=1):
            found |= {key for message in row.messages if (key := _trained(message)) in answers and key is not None}
            if len(found) == len(answers):
                return found
    return found


def _trained(message: Message) -> str | None:
    return _key(as_object(message)) if message.trained else None


@dataclass(frozen=True, slots=True)
class Difference:
    """A measure of two models over the same rows; `low` to `high` holds what the second has more."""

    key: str
    num_rows: int
    base: float
    tuned: float
    low: float | None  # None where a single group of rows has the measure
    high: float | None
    num_groups: int = GROUPS_NEEDED  # of rows that are one observation each; earlier versions knew of none

    @property
    def change(self) -> float:
        return self.tuned - self.base

    @property
    def is_clear(self) -> bool:
        """True if the interval leaves out 0, and enough was observed for it."""
        return (
            self.num_groups >= GROUPS_NEEDED
            and self.low is not None
            and self.high is not None
            and not self.low <= 0 <= self.high
        )


def differences(base: Sequence[Sums], tuned: Sequence[Sums], groups: Sequence[int], seed: int) -> list[Difference]:
    """Each measure that some row has; `base` and `tuned` are the same rows in the same order.

    `groups`: the number of each row's group, from 0 on without a gap.
    """
    import numpy

    counts = {key: sum(key in row for row in base) for key in MEASURES}
    present = [key for key, count in counts.items() if count]
    none = (0.0, 0.0)  # a row without a measure adds nothing to its total nor to its count
    table = numpy.array(
        [[(b.get(key, none), t.get(key, none)) for key in present] for b, t in zip(base, tuned, strict=True)]
    )  # [rows, measures, base and tuned, total and count]
    before, after = _ratios(table.sum(axis=0)).T.tolist()
    grouped = numpy.zeros((max(groups) + 1, *table.shape[1:]))
    numpy.add.at(grouped, numpy.asarray(groups), table)
    num_groups = (grouped[:, :, 0, 1] > 0).sum(axis=0).tolist()
    resampled = _ratios(_resampled(grouped, seed))  # [resamples, measures, base and tuned]
    tails = [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]
    low, high = numpy.nanpercentile(resampled[..., 1] - resampled[..., 0], tails, axis=0).tolist()
    bounds = [(low[i], high[i]) if number > 1 else (None, None) for i, number in enumerate(num_groups)]
    return [
        Difference(key, counts[key], before[i], after[i], bounds[i][0], bounds[i][1], num_groups[i])
        for i, key in enumerate(present)
    ]


def _resampled(table: "Array", seed: int) -> "Array":
    """Totals over groups drawn with replacement, [resamples, measures, 2, 2]."""
    import numpy

    count = len(table)
    rng, flat, size = numpy.random.default_rng(seed), table.reshape(count, -1), max(1, BLOCK // count)
    blocks = [
        # How often each group is drawn in each resample, times the group.
        rng.multinomial(count, [1 / count] * count, size=min(size, RESAMPLES - done)) @ flat
        for done in range(0, RESAMPLES, size)
    ]
    return numpy.concatenate(blocks).reshape(-1, *table.shape[1:])


def _ratios(totals: "Array") -> "Array":
    """Total by count, NaN where nothing was counted."""
    import numpy

    with numpy.errstate(invalid="ignore"):
        ratios: Array = totals[..., 0] / totals[..., 1]
    return ratios


def share_interval(counted: Sequence[tuple[float, float]], groups: Sequence[int]) -> tuple[float, float]:
    """Wilson's interval of a share, for as many independent observations as the groups leave.

    `counted` has each row's hits and tries. At none or all of a few rows a bootstrap would claim to be certain. The
    number of tries is divided by Kish's design effect, as Franco, Little, Louis and Slud advise: Comparative Study of
    Confidence Intervals for Proportions in Complex Sample Surveys, Journal of Survey Statistics and Methodology 7
    (2019).
    """
    hits, tries = sum(hit for hit, _ in counted), sum(tried for _, tried in counted)
    return wilson_of_share(hits / tries, _effective(counted, groups))


def _effective(counted: Sequence[tuple[float, float]], groups: Sequence[int]) -> float:
    """Independent tries that leave a share as uncertain; at none or all hits, one for each group."""
    hits, tries = sum(hit for hit, _ in counted), sum(tried for _, tried in counted)
    share, number = hits / tries, len(set(groups))
    if hits in (0, tries) or number < 2:
        return min(float(number), tries)
    off: dict[int, float] = {}
    for (hit, tried), group in zip(counted, groups, strict=True):
        off[group] = off.get(group, 0.0) + hit - share * tried
    variance = number / (number - 1) * sum(value * value for value in off.values()) / tries**2
    simple = share * (1 - share) / (tries - 1)
    return min(tries, tries * simple / variance) if variance else tries


@dataclass(frozen=True, slots=True)
class Decision:
    """Rank of a model beside another one, and the ground: right answers, or the closeness of wrong ones."""

    kind: Kind
    by: Literal["right", "score"] | None = None


def decide(base: Sequence[Sums], tuned: Sequence[Sums], outcomes: Sequence[Outcome], groups: Sequence[int]) -> Decision:
    """Rank the second model beside the first one, beyond chance; `outcomes` are the rows' changes.

    Right answers decide; only where they leave it open, the rows that came closer or went farther. Two models that are
    equally good differ in 5 of 100 comparisons at most: each of the two tests may err in half of that
    (Bonferroni).
    """
    right = [after["right"][0] - before["right"][0] for before, after in zip(base, tuned, strict=True)]
    steps = [STEPS[outcome] for outcome in outcomes]
    tests: tuple[tuple[Literal["right", "score"], Sequence[float]], ...] = (("right", right), ("score", steps))
    for by, changes in tests:
        up, down = moved(changes, groups)
        if sign_test(up, down) < LEVEL:
            return Decision("better" if up > down else "worse", by)
    return Decision("unclear")


def sign_test(up: int, down: int) -> float:
    """Probability that chance alone lets this many change one way and so few the other: exact, two-sided."""
    total = up + down
    return min(1.0, 2 * sum(comb(total, number) for number in range(min(up, down) + 1)) / (1 << total))


def moved(changes: Sequence[float], groups: Sequence[int]) -> tuple[int, int]:
    """Numbers of groups of rows that went up, and that went down."""
    sums: dict[int, float] = {}
    for change, group in zip(changes, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + change
    return sum(value > 0 for value in sums.values()), sum(value < 0 for value in sums.values())
