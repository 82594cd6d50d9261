"""The result of a comparison as it stands in report.json: the verdict, the measures, and every row with its answers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean
from typing import Any

from trainer.data.render.rendering import as_object
from trainer.inference.evaluation.distinct import count_distinct, groups
from trainer.inference.evaluation.held_out import HeldOut
from trainer.inference.evaluation.intervals import differences
from trainer.inference.evaluation.measures import Sums, outcome
from trainer.inference.evaluation.noise import noise_levels
from trainer.inference.evaluation.questions import Question
from trainer.inference.evaluation.verdict import make_verdict
from trainer.inference.replies import Spoken
from trainer.runs import Run
from trainer.runs.run import now
from trainer.training.curve import recorded_curve
from trainer.training.dataset import Row

FORMAT = 2  # raised when a reader of report.json must know; evaluation/stored.py reads the earlier ones


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to a question, and what is measured of it."""

    spoken: Spoken
    ended: bool
    measures: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        calls = [{"name": call.name, "arguments": call.arguments} for call in self.spoken.calls]
        return {"text": self.spoken.text, "calls": calls, "ended": self.ended, "measures": dict(self.measures)}


def make_result(
    run: Run,
    held_out: HeldOut,
    questions: Sequence[Question],
    answers: Mapping[str, Sequence[Answer]],
    losses: Mapping[str, Sequence[Sums]],
    seed: int,
    seconds: float,
) -> dict[str, Any]:
    """`answers` by model and question, `losses` by model and row.

    The models are "base", "tuned" and, where the run trained an earlier one's adapter further, "start".
    """
    against = "start" if "start" in answers else "base"
    noise = noise_levels([None if question.reference.names else question.reference.text for question in questions])
    asked: list[list[tuple[int, Question]]] = [[] for _ in held_out.rows]
    for number, question in enumerate(questions):
        asked[question.row].append((number, question))
    rows = [_row(row, of_row, answers, noise, against) for row, of_row in zip(held_out.rows, asked, strict=True)]
    for name, of_rows in losses.items():
        for row, of_row in zip(rows, of_rows, strict=True):
            row["sums"][name] |= of_row
    sums = {name: [row["sums"][name] for row in rows] for name in answers}
    independent, distinct = groups(rows), count_distinct(rows, held_out.trained)
    found = differences(sums[against], sums["tuned"], independent, seed)
    longest = held_out.limits.max_new_tokens
    assert isinstance(longest, int)  # resolved
    names = names_of(run, answers)
    outcomes = [row["outcome"] for row in rows]
    verdict = make_verdict(outcomes, sums, against, names, found, independent, distinct, longest)
    curve, n_epochs = recorded_curve(run)
    if note := curve.still_falling(n_epochs):
        verdict = replace(verdict, remarks=(*verdict.remarks, note))
    return {
        "format": FORMAT,
        "created_at": now(),
        "run": run.name,
        "verdict": asdict(verdict),
        "models": names,
        "measures": [asdict(difference) for difference in found],
        "measures_from_base": [
            asdict(difference)
            for difference in ([] if against == "base" else differences(sums["base"], sums["tuned"], independent, seed))
        ],
        "files": list(held_out.files),
        "num_rows": len(rows),
        "num_held_out": held_out.total,
        "rows_sha256": held_out.sha256,
        "notes": [*held_out.notes, *_unread(questions)],
        "settings": held_out.limits.model_dump(exclude={"enabled"}) | {"seed": seed},
        "seconds": round(seconds, 1),
        "rows": rows,
    }


def names_of(run: Run, models: Iterable[str]) -> dict[str, str]:
    """What each model is called. A service's run may begin at another run's model: that is its base."""
    parent = run.manifest().parent
    called = {"base": "base", "tuned": "tuned"}
    if parent:
        called |= {"start" if "start" in models or run.backend != "openai" else "base": parent.run}
    return {name: called[name] for name in models}


def _row(
    row: Row,
    questions: Sequence[tuple[int, Question]],
    answers: Mapping[str, Sequence[Answer]],
    noise: Sequence[float],
    against: str,
) -> dict[str, Any]:
    messages = [as_object(message) for message in row.conversation.messages]
    sums = {name: _sums([of_model[number].measures for number, _ in questions]) for name, of_model in answers.items()}
    score = {name: total / count for name, (total, count) in ((name, sums[name]["score"]) for name in sums)}
    expected = mean(noise[number] for number, _ in questions)
    return {
        "place": row.conversation.place,
        "outcome": outcome(
            (sums[against]["right"][0], sums["tuned"]["right"][0]),
            (score[against], score["tuned"]),
            expected,
        ),
        "score": score,
        "noise": expected,
        "messages": [{key: value for key, value in message.items() if value is not None} for message in messages],
        "tools": [tool["function"]["name"] for tool in row.conversation.tools],
        "answers": [
            {"message": question.message, "reference": question.reference.text}
            | {name: of_model[number].to_json() for name, of_model in answers.items()}
            for number, question in questions
        ],
        "sums": sums,
    }


def _sums(measured: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """The totals and counts of a row's answers; its score is their mean and counts once, as every row's."""
    keys = dict.fromkeys(key for measures in measured for key in measures)
    values = {key: [measures[key] for measures in measured if key in measures] for key in keys}
    sums = {key: (sum(found), float(len(found))) for key, found in values.items()}
    total, count = sums["score"]
    return sums | {"score": (total / count, 1.0)}


def _unread(questions: Sequence[Question]) -> list[str]:
    """Told where the form of the template's tool calls cannot be read."""
    with_calls = [question for question in questions if question.reference.names]
    count = sum(question.reference.spoken is None for question in with_calls)
    note = (
        f"in {count:,} of {len(with_calls):,} answers the template writes tool calls in a form that cannot be read "
        "back; there only answers identical to the reference count as right"
    )
    return [note] if count else []
