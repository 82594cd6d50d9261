"""Base and tuned model on held-out rows: read this file top to bottom.

    find the rows, load the model, let both answer, measure the loss, compare row by row.

All get the same prompts, with the row's own system prompt, and answer greedily. A run that trained another one's
adapter further is held against that one first.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from trainer.config.schema import EvaluationConfig, RunConfig
from trainer.errors import ConfigError
from trainer.inference.evaluation.held_out import HeldOut, find_held_out, render_held_out, seed_of
from trainer.inference.evaluation.losses import row_losses
from trainer.inference.evaluation.questions import Question, ask, measure_answer
from trainer.inference.evaluation.result import Answer, make_result
from trainer.inference.generate import generate
from trainer.inference.local import TunedModel
from trainer.inference.replies import ReplyReader
from trainer.inference.trained import starting_adapter, trained_adapter
from trainer.model.device import give_memory_back
from trainer.runs import Run
from trainer.training.ranks import Ranks

Name = Literal["base", "start", "tuned"]


@dataclass(frozen=True, slots=True)
class Exam:
    """What each model is asked."""

    model: TunedModel
    held_out: HeldOut
    reader: ReplyReader
    questions: list[Question]
    token_budget: int
    start: Path | None  # the adapter that training began with
    console: Console

    @property
    def models(self) -> list[Name]:
        return ["base", *(["start"] if self.start else []), "tuned"]  # type: ignore[list-item]  # mypy widens them

    @contextmanager
    def speaking(self, name: Name) -> Iterator[bool]:
        """Within it the model is the one named, with its adapter on or off as is told."""
        with nullcontext() if name != "start" or self.start is None else self.model.wearing(self.start):
            yield name != "base"


def evaluate(
    run: Run,
    console: Console,
    file: Path | None = None,
    max_rows: int | None = None,
    max_new_tokens: int | None = None,
    ranks: Ranks | None = None,
) -> dict[str, Any]:
    """Compare `run` with its base on its validation rows, or on those of `file`; the result can be written as JSON.

    Where `ranks` hold the base in parts, each of them calls this, and computes the same.

    Raises: ConfigError, DataError, TrainingError.
    """
    started = time.monotonic()
    exam = _prepare(run, console, file, {"max_rows": max_rows, "max_new_tokens": max_new_tokens}, ranks)
    answers: dict[str, list[Answer]] = {}
    losses: dict[str, list[dict[str, tuple[float, float]]]] = {}
    for name in exam.models:
        with exam.speaking(name) as adapter:
            answers[name] = _answers(exam, name, adapter)
            losses[name] = row_losses(exam.model, exam.held_out.rows, adapter=adapter)
    seconds = time.monotonic() - started
    return make_result(run, exam.held_out, exam.questions, answers, losses, seed_of(run.config()), seconds)


def _prepare(run: Run, console: Console, file: Path | None, given: dict[str, int | None], ranks: Ranks | None) -> Exam:
    trained_adapter(run)
    config = run.config()
    found = find_held_out(run, config, file)
    give_memory_back()  # of the model that was trained a moment ago
    model = TunedModel(run, ranks)
    # A run's own limits were made for its validation rows.
    limits = config.evaluation if file is None else EvaluationConfig()
    limits = limits.model_copy(update={name: value for name, value in given.items() if value is not None})
    held_out = render_held_out(found, config, limits, model.renderer, model.max_length)
    start, note = _start_of(run)
    held_out = replace(held_out, notes=(*held_out.notes, *note))
    _tell(held_out, config, console, start)
    reader = ReplyReader(model.renderer)
    assert isinstance(config.memory.token_budget, int)  # a run's config is resolved
    questions = ask(held_out.rows, model.renderer, reader)
    return Exam(model, held_out, reader, questions, config.memory.token_budget, start, console)


def _start_of(run: Run) -> tuple[Path | None, list[str]]:
    """The adapter that training began with, and a note where there was one that cannot be had any more."""
    try:
        return starting_adapter(run), []
    except ConfigError as error:
        return None, [f"compared with the base alone, and not with the run that it came from: {error}"]


def _tell(held_out: HeldOut, config: RunConfig, console: Console, start: Path | None) -> None:
    for note in held_out.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    count, total = len(held_out.rows), held_out.total
    rows = f"{count:,}" if count == total else f"{count:,} of {total:,}"
    drawn = "" if count == total else f", drawn at random with seed {seed_of(config)}"
    models = "base and tuned model" if start is None else f"base, {config.model.base} and tuned model"
    console.print(f"comparing {models} on {rows} held-out rows{drawn}", highlight=False, soft_wrap=True)


def _answers(exam: Exam, name: Name, adapter: bool) -> list[Answer]:
    """One model's answers to all questions."""
    total, limit = len(exam.questions), exam.held_out.limits.max_new_tokens
    assert isinstance(limit, int)
    with exam.console.status("") as status:
        done = 0

        def advance(num_answers: int) -> None:
            nonlocal done
            done += num_answers
            status.update(f"{name} model: {done:,} of {total:,} answers")

        advance(0)
        prompts = [question.prompt_ids for question in exam.questions]
        replies = generate(
            exam.model,
            prompts,
            adapter=adapter,
            max_new_tokens=limit,
            token_budget=exam.token_budget,
            advance=advance,
        )
    answers = []
    for question, reply in zip(exam.questions, replies, strict=True):
        generated = exam.reader.decode(reply.ids)
        spoken = exam.reader.read(generated, question.prompt)
        answers.append(Answer(spoken, reply.ended, measure_answer(question, generated, spoken, reply.ended)))
    return answers
