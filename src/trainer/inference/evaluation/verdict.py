"""Verdict of a comparison, in a sentence that says no more than the rows show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.inference.evaluation.measures import ModelKey, Outcome, Sums
from trainer.inference.evaluation.significance import GROUPS_NEEDED, Difference, Distinct, Kind, decide, share_interval

UNENDED_TOLD = 0.25  # of the answers, from which on the sentence itself says that they do not end


@dataclass(frozen=True, slots=True)
class Verdict:
    """Verdict on the tuned model, as report.json has it."""

    kind: Kind
    sentence: str
    against: (
        ModelKey  # the model that the tuned one is compared with: "base", or "start" where an earlier run was continued
    )
    remarks: tuple[str, ...]  # what a reader must know to believe the sentence as far as it goes
    answers: int
    right: Mapping[ModelKey, int]  # right or nearly right answers by model
    right_interval: tuple[float, float]  # of the tuned model's share of them
    unended: Mapping[ModelKey, int]  # answers by model that were cut off
    better: int  # rows, beyond noise; the same below
    same: int
    worse: int
    distinct: Distinct


def make_verdict(
    outcomes: Sequence[Outcome],
    sums: Mapping[ModelKey, Sequence[Sums]],
    against: ModelKey,
    names: Mapping[ModelKey, str],
    found: Sequence[Difference],
    groups: Sequence[int],
    distinct: Distinct,
    max_new_tokens: int,
) -> Verdict:
    """`sums` by model and row, `names` what each model is called, `groups` the rows that count as one.

    `outcomes`, and `found` over all rows, are the changes from the model that is `against` the tuned one.
    """
    counted = {name: [row["right"] for row in of_model] for name, of_model in sums.items()}
    right, answers = _total(sums, "right"), round(sum(total for _, total in counted["tuned"]))
    unended = {name: answers - ended for name, ended in _total(sums, "ended").items()}
    interval = share_interval(counted["tuned"], groups)
    kind = decide(sums[against], sums["tuned"], outcomes, groups).kind
    better, same, worse = (outcomes.count(outcome) for outcome in ("better", "same", "worse"))
    loss = next((difference for difference in found if difference.key == "loss"), None)  # services tell none
    low, high = interval
    share = f"{right['tuned']:,} of {_counted(answers, 'answer')} right or nearly right"
    others = ", ".join(f"{names[name]} {right[name]:,}" for name in dict.fromkeys((against, "base")))
    parts = [
        f"{_opening(kind, distinct, names[against])}: {share} (95% CI {100 * low:.0f}-{100 * high:.0f}%), {others}",
        f"beyond noise better on {better:,} of {_counted(len(outcomes), 'row')}, worse on {worse:,}",
        *([] if loss is None else [f"loss {loss.base:.2f} to {loss.tuned:.2f}"]),
    ]
    if unended["tuned"] >= UNENDED_TOLD * answers:
        parts.append(f"{unended['tuned']:,} of {_counted(answers, 'answer')} did not end")
    before = f"{names[against]} {unended[against]:,}"
    remarks = (*_remarks(distinct, len(outcomes)), *_endings(unended["tuned"], before, answers, max_new_tokens))
    return Verdict(
        kind, "; ".join(parts), against, remarks, answers, right, interval, unended, better, same, worse, distinct
    )


@dataclass(frozen=True, slots=True)
class WinRate:
    """Pairs on which the tuned model's margin of the preferred answer is greater than the reference's."""

    wins: int
    pairs: int
    interval: tuple[float, float]  # of their share

    def __str__(self) -> str:
        low, high = (100 * end for end in self.interval)
        return (
            f"its margin favours the preferred answer, beside the reference, on {self.wins:,} of "
            f"{_counted(self.pairs, 'pair')} (95% CI {low:.0f}-{high:.0f}%)"
        )


def win_rate(reference: Sequence[Sums], tuned: Sequence[Sums], groups: Sequence[int]) -> WinRate | None:
    """Of the rows that are pairs, by model and row; None without any. `groups`: the rows that count as one."""
    counted = [
        (float(after["margin"][0] > before["margin"][0]), 1.0)
        for before, after in zip(reference, tuned, strict=True)
        if "margin" in after
    ]
    of_pairs = [group for group, row in zip(groups, tuned, strict=True) if "margin" in row]
    if not counted:
        return None
    return WinRate(round(sum(win for win, _ in counted)), len(counted), share_interval(counted, of_pairs))


def _total(sums: Mapping[ModelKey, Sequence[Sums]], key: str) -> dict[ModelKey, int]:
    """Number of answers with that mark, for each model."""
    return {name: round(sum(row[key][0] for row in of_model)) for name, of_model in sums.items()}


def _opening(kind: Kind, distinct: Distinct, before: str) -> str:
    """A base needs no mention: that a model is compared with it is what everybody expects."""
    if kind != "unclear":
        return kind if before == "base" else f"{kind} than {before}"
    if distinct.independent < GROUPS_NEEDED:
        return "too few different rows to tell"
    return "no clear difference" if before == "base" else f"no clear difference from {before}"


def _remarks(distinct: Distinct, num_rows: int) -> list[str]:
    found = []
    if distinct.independent < num_rows:
        repeated = "" if distinct.rows == num_rows else f"{num_rows:,} rows are {distinct.rows:,} different ones; "
        found.append(
            f"{repeated}rows that expect the same answer count as one observation in the intervals, which leaves "
            f"{distinct.independent:,}"
        )
    if distinct.seen:
        which = f"{distinct.seen:,} of {_counted(distinct.answers, 'different answer')}"
        were = "was" if distinct.seen == 1 else "were"
        found.append(
            f"{which} {were} trained on, to other questions or the same in other words: "
            "there this shows what the model has learned, and not how it does on anything new"
        )
    return found


def _endings(number: int, before: str, answers: int, max_new_tokens: int) -> list[str]:
    if not number:
        return []
    count = f"{number:,} of {_counted(answers, 'answer')}"
    unended = f"{count} did not end within {max_new_tokens:,} tokens ({before})"
    return [f"{unended}; train longer if they ramble, raise evaluation.max_new_tokens if they are good so far"]


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
