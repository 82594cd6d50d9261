"""A comparison as report.json holds it: made here, and read again, also as an earlier version wrote it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

from trainer.data.conversations import Conversation
from trainer.data.render.rendering import as_object
from trainer.inference.evaluation.held_out import HeldOut
from trainer.inference.evaluation.measures import ModelKey, Sums, is_right, noise_levels, outcome
from trainer.inference.evaluation.questions import MeasuredAnswer, Question
from trainer.inference.evaluation.significance import count_distinct, differences, groups
from trainer.inference.evaluation.verdict import make_verdict, win_rate
from trainer.kinds import is_service
from trainer.runs import Run
from trainer.runs.files import refuse_newer
from trainer.runs.run import now
from trainer.training.curve import recorded_curve

FORMAT = 2  # raised when a reader of report.json must know
FORMER = 1  # knew no right answers


def make_result(
    run: Run,
    held_out: HeldOut,
    questions: Sequence[Question],
    answers: Mapping[ModelKey, Sequence[MeasuredAnswer]],
    losses: Mapping[ModelKey, Sequence[Sums]],
    seconds: float,
    names: Mapping[ModelKey, str] | None = None,
) -> dict[str, Any]:
    """`answers` by model and question, `losses` by model and row, of the models that have any.

    `names`: of the models, where they are not the run's base and its own.
    """
    against: ModelKey = "start" if "start" in answers else "base"
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
    found = differences(sums[against], sums["tuned"], independent, held_out.seed)
    from_base = [] if against == "base" else differences(sums["base"], sums["tuned"], independent, held_out.seed)
    names = names_of(run, answers) if names is None else dict(names)
    outcomes = [row["outcome"] for row in rows]
    verdict = make_verdict(outcomes, sums, against, names, found, independent, distinct, held_out.max_new_tokens)
    wins = win_rate(sums[_reference(run, answers)], sums["tuned"], independent)
    if wins is not None:
        verdict = replace(verdict, remarks=(*verdict.remarks, str(wins)))
    curve, n_epochs = recorded_curve(run)
    if note := curve.still_falling(n_epochs):
        verdict = replace(verdict, remarks=(*verdict.remarks, note))
    return {
        "format": FORMAT,
        "created_at": now(),
        "run": run.name,
        "verdict": asdict(verdict),
        "models": names,
        "wins": None if wins is None else asdict(wins),
        "measures": [asdict(difference) for difference in found],
        "measures_from_base": [asdict(difference) for difference in from_base],
        "files": list(held_out.files),
        "num_rows": len(rows),
        "num_held_out": held_out.total,
        "rows_sha256": held_out.sha256,
        "notes": [*held_out.notes, *_unread(questions)],
        "settings": held_out.limits.model_dump(exclude={"enabled"}) | {"seed": held_out.seed},
        "seconds": round(seconds, 1),
        "rows": rows,
    }


def _reference(run: Run, models: Iterable[ModelKey]) -> ModelKey:
    """The model that preference training stayed close to."""
    return "start" if "start" in models and run.config().training.dpo.reference == "run" else "base"


def names_of(run: Run, models: Iterable[ModelKey]) -> dict[ModelKey, str]:
    """Names of the models. A service's run may begin at another run's model: that is its base."""
    parent = run.manifest().parent
    called: dict[ModelKey, str] = {"base": "base", "tuned": "tuned"}
    if parent:
        called |= {"start" if "start" in models or not is_service(run.backend) else "base": parent.run}
    return {name: called[name] for name in models}


def _row(
    row: Conversation,
    questions: Sequence[tuple[int, Question]],
    answers: Mapping[ModelKey, Sequence[MeasuredAnswer]],
    noise: Sequence[float],
    against: ModelKey,
) -> dict[str, Any]:
    messages = [as_object(message) for message in row.messages]
    sums = {name: _sums([of_model[number].measures for number, _ in questions]) for name, of_model in answers.items()}
    score = {name: total / count for name, (total, count) in ((name, sums[name]["score"]) for name in sums)}
    expected = mean(noise[number] for number, _ in questions)
    return {
        "place": row.place,
        "outcome": outcome(
            (sums[against]["right"][0], sums["tuned"]["right"][0]),
            (score[against], score["tuned"]),
            expected,
        ),
        "score": score,
        "noise": expected,
        "messages": [{key: value for key, value in message.items() if value is not None} for message in messages],
        "tools": [tool["function"]["name"] for tool in row.tools],
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
    count = sum(question.reference.calls is None for question in with_calls)
    note = (
        f"in {count:,} of {len(with_calls):,} answers the template writes tool calls in a form that cannot be read "
        "back; there only answers identical to the reference count as right"
    )
    return [note] if count else []


def readable(result: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """The result with what has been added since it was written to `path`, None where it is none.

    Raises: ConfigError, when a newer version wrote it.
    """
    refuse_newer(path, result.get("format"), FORMAT)
    if result.get("format") not in (FORMER, FORMAT):
        return None
    rows = list(result["rows"])
    if result["format"] == FORMER:
        rows = [_with_right(row) for row in rows]
    if any("noise" not in row for row in rows):
        rows = _with_noise(rows)
    return {"models": {"base": "base", "tuned": "tuned"}, "measures_from_base": [], **result, "rows": rows}


def _with_right(row: Mapping[str, Any]) -> dict[str, Any]:
    counts = {name: [_is_right(answer, name) for answer in row["answers"]] for name in row["sums"]}
    sums = {
        name: values | {"right": (float(sum(counts[name])), float(len(counts[name])))}
        for name, values in row["sums"].items()
    }
    return dict(row) | {"sums": sums}


def _is_right(answer: Mapping[str, Any], name: str) -> bool:
    measures = answer[name]["measures"]
    if "calls" in measures:
        return bool(measures["calls"])
    return is_right(answer[name]["text"], answer["reference"])


def _with_noise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add to each row the score of a wrong answer, found in the references of all rows."""
    levels = iter(noise_levels([_text(row, answer) for row in rows for answer in row["answers"]]))
    return [dict(row) | {"noise": mean(next(levels) for _ in row["answers"])} for row in rows]


def _text(row: Mapping[str, Any], answer: Mapping[str, Any]) -> str | None:
    return None if row["messages"][answer["message"]].get("tool_calls") else str(answer["reference"])
