"""A run's models on the same held-out rows: read this file top to bottom.

    ask every model, measure the answers, take the losses where they are to be had, compare row by row.

All get the same prompts, with the row's own system prompt, and answer greedily. A run that trained another one's
adapter further is compared with that one first. Whoever answers, and however the rows were found, this is the way from
them to report.json.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainer.inference.evaluation.held_out import HeldOut
from trainer.inference.evaluation.measures import ModelKey, Sums
from trainer.inference.evaluation.questions import Answerer, MeasuredAnswer, Question, ask, measure_answer
from trainer.inference.evaluation.result import make_result
from trainer.runs import Run

Progress = Callable[[ModelKey, int, int], None]  # which model, how many answers it has given, and of how many


def compare(
    run: Run,
    held_out: HeldOut,
    answerer: Answerer,
    say: Callable[[str], None],
    since: float,
    progress: Progress = lambda model, done, total: None,
    names: Mapping[ModelKey, str] | None = None,
) -> dict[str, Any]:
    """The result as report.json holds it; `since` is when the work on it began (time.monotonic).

    `names`: of the models, where they are not the run's base and its own.
    """
    _tell(run, held_out, answerer, say, names)
    questions = ask(held_out.rows, answerer.reference)
    answers: dict[ModelKey, list[MeasuredAnswer]] = {}
    losses: dict[ModelKey, Sequence[Sums]] = {}
    for model in answerer.models:
        answers[model] = _answers(model, questions, answerer, progress)
        if (of_rows := answerer.losses(model)) is not None:
            losses[model] = of_rows
    return make_result(run, held_out, questions, answers, losses, time.monotonic() - since, names)


def _tell(
    run: Run,
    held_out: HeldOut,
    answerer: Answerer,
    say: Callable[[str], None],
    names: Mapping[ModelKey, str] | None,
) -> None:
    for note in held_out.notes:
        say(note)
    count, total = len(held_out.rows), held_out.total
    rows = f"{count:,}" if count == total else f"{count:,} of {total:,}"
    drawn = "" if count == total else f", drawn at random with seed {held_out.seed}"
    start = f", {run.config().model.base}" if "start" in answerer.models else ""
    models = f"base{start} and tuned model" if names is None else " and ".join(names.values())
    say(f"comparing {models} on {rows} held-out rows{drawn}")


def _answers(
    model: ModelKey, questions: Sequence[Question], answerer: Answerer, progress: Progress
) -> list[MeasuredAnswer]:
    done, total = 0, len(questions)

    def advance(num_answers: int) -> None:
        nonlocal done
        done += num_answers
        progress(model, done, total)

    advance(0)
    replies = answerer.replies(model, questions, advance)
    return [
        MeasuredAnswer(reply, measure_answer(question, reply))
        for question, reply in zip(questions, replies, strict=True)
    ]
