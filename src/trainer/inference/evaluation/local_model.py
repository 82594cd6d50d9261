"""The local answerer: one model that is loaded once, with the run's adapter on, off, or another one in its place."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from trainer.config.schema import EvaluationConfig, RunConfig
from trainer.data.conversations import Conversation
from trainer.data.render.chat_template import Rendered
from trainer.data.render.overlength import Touched, shortened
from trainer.data.render.rendering import Renderer, as_object
from trainer.errors import ConfigError, TrainingError
from trainer.inference.client import Reply
from trainer.inference.evaluation.comparison import compare
from trainer.inference.evaluation.held_out import Found, HeldOut, draw, find_held_out, seed_of
from trainer.inference.evaluation.measures import ModelKey, Sums
from trainer.inference.evaluation.questions import Question, Reference
from trainer.inference.generate import generate
from trainer.inference.local import TunedModel
from trainer.inference.replies import ReplyReader
from trainer.inference.suite.items import Suite
from trainer.inference.suite.kept import answer_tokens, measure_kept, with_kept
from trainer.inference.thoughts import parted
from trainer.inference.trained import starting_adapter, trained_adapter
from trainer.model.device import give_memory_back
from trainer.runs import Run
from trainer.training.answer_limits import resolve_limits
from trainer.training.dataset import Row, render_rows
from trainer.training.ranks import Ranks

USUAL_BUDGET = 4096  # tokens at a time
SHOWN_ROWS = 5  # of those that were too long


def evaluate(
    run: Run,
    console: Console,
    file: Path | None = None,
    max_rows: int | None = None,
    max_new_tokens: int | None = None,
    ranks: Ranks | None = None,
    suite: Suite | None = None,
) -> dict[str, Any]:
    """Compare `run` with its base on its validation rows, or on those of `file`; the result can be written as JSON.

    Both also answer the items of `suite`.

    Where the base is sharded over `ranks`, each of them calls this, and computes the same.

    Raises: ConfigError, DataError, TrainingError.
    """
    since = time.monotonic()
    trained_adapter(run)
    config = run.config()
    found = find_held_out(run, config, file)
    give_memory_back()  # of the model that was trained a moment ago
    model = TunedModel(run, ranks)
    # A run's own limits were made for its validation rows.
    limits = config.evaluation if file is None else EvaluationConfig()
    given = {"max_rows": max_rows, "max_new_tokens": max_new_tokens}
    limits = limits.model_copy(update={name: value for name, value in given.items() if value is not None})
    held_out, rows = render_held_out(found, config, limits, model.renderer, model.max_length)
    start, note = _start_of(run)
    held_out = replace(held_out, notes=(*held_out.notes, *note))
    answerer = LocalAnswerer(model, rows, held_out.max_new_tokens, _token_budget(config), start)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    with console.status("") as status:

        def progress(name: ModelKey, done: int, total: int) -> None:
            status.update(f"{name} model: {done:,} of {total:,} answers")

        result = compare(run, held_out, answerer, say, since, progress)
        if suite is None:
            return result
        asked, omitted = suite.rendered_by(model.renderer)
        say(f"comparing both on {len(asked.items):,} general items ({asked.name})")
        room = answer_tokens(model.renderer.template.names_thoughts)
        kept = measure_kept(asked, replace(answerer, max_new_tokens=room), progress, omitted)
    return with_kept(result, kept) | {"seconds": round(time.monotonic() - since, 1)}


def _start_of(run: Run) -> tuple[Path | None, list[str]]:
    """The adapter that training began with, and a note where there was one that cannot be had any more."""
    try:
        return starting_adapter(run), []
    except ConfigError as error:
        return None, [f"compared with the base alone, and not with the run that it came from: {error}"]


def _token_budget(config: RunConfig) -> int:
    budget = config.memory.token_budget
    return budget if isinstance(budget, int) else USUAL_BUDGET  # of a run that a server has trained, nobody planned it


def render_held_out(
    found: Found, config: RunConfig, limits: EvaluationConfig, renderer: Renderer, base_length: int
) -> tuple[HeldOut, tuple[Row, ...]]:
    """Render as in training, and draw as many rows as `limits` allow.

    Raises: DataError, with every row that the model's template cannot render exactly or that is too long.
    """
    max_length = base_length if config.data.max_length == "auto" else config.data.max_length
    rows, touched = render_rows(found.conversations, config.data, renderer, max_length)
    if not rows:
        raise ConfigError(f"{', '.join(found.files)}: no row is left after dropping those over {max_length:,} tokens")
    resolved, seed = resolve_limits(limits, rows, config.data.train_reasoning), seed_of(config)
    assert isinstance(resolved.max_rows, int)
    drawn = tuple(_as_trained(row, touched, renderer, max_length) for row in draw(rows, resolved.max_rows, seed))
    notes = [f"{note.place}: {note.num_tokens:,} tokens, {note.outcome}" for note in touched[:SHOWN_ROWS]]
    if hidden := len(touched) - len(notes):
        notes.append(f"and {hidden:,} more rows that were too long")
    conversations = tuple(row.conversation for row in drawn)
    notes = [*found.notes, *notes]
    return HeldOut(conversations, len(rows), found.files, resolved, seed, tuple(notes), found.trained), drawn


def _as_trained(row: Row, touched: Sequence[Touched], renderer: Renderer, max_length: int) -> Row:
    """The row without the turns that `data.on_overlength: truncate` removed."""
    if row.conversation.place not in {note.place for note in touched}:
        return row
    found = shortened(row.conversation, renderer, max_length)
    assert found is not None  # the row was truncated, so that it fits
    return replace(row, conversation=found[0])


class TemplateQuestions:
    """Questions in one model's chat template, and the reference answers as that model would write them."""

    def __init__(self, renderer: Renderer) -> None:
        self.template = renderer.template
        self.reader = ReplyReader(renderer)

    def prompt(self, conversation: Conversation, message: int) -> Rendered:
        """Prompt that serving would send before that message."""
        before = [self.template.adapt(as_object(said)) for said in conversation.messages[:message]]
        return self.template.encode(before, _tools(conversation), prompt=True)

    def reference(self, conversation: Conversation, message: int) -> Reference:
        """The row's own answer, with its tool calls as they would be read from what the model generates."""
        answer = conversation.messages[message]
        text, names = parted(answer.content or "")[1].strip(), tuple(call.name for call in answer.tool_calls)
        if not names:
            return Reference(text)
        said = [self.template.adapt(as_object(each)) for each in conversation.messages[: message + 1]]
        generated = self.reader.rendered(said, _tools(conversation))
        if generated is None:
            return Reference(text, names, None)
        calls = self.reader.read(generated, self.prompt(conversation, message).text).calls
        readable = sorted(call.name for call in calls) == sorted(names)
        return Reference(text, names, calls if readable else None, generated)


def _tools(conversation: Conversation) -> list[dict[str, Any]] | None:
    return [dict(tool) for tool in conversation.tools] or None


@dataclass(frozen=True, slots=True)
class LocalAnswerer:
    """Base, tuned model and, where training began with an earlier adapter, that one: the same weights three times."""

    model: TunedModel
    rows: tuple[Row, ...]
    max_new_tokens: int
    token_budget: int
    start: Path | None  # the adapter that training began with

    @property
    def models(self) -> tuple[ModelKey, ...]:
        return ("base", "tuned") if self.start is None else ("base", "start", "tuned")

    @property
    def _questions(self) -> TemplateQuestions:
        return TemplateQuestions(self.model.renderer)

    def reference(self, conversation: Conversation, message: int) -> Reference:
        return self._questions.reference(conversation, message)

    def replies(self, model: ModelKey, questions: Sequence[Question], advance: Callable[[int], None]) -> list[Reply]:
        template = self._questions
        prompts = [template.prompt(question.conversation, question.message) for question in questions]
        with self._speaking(model) as adapter:
            continuations = generate(
                self.model,
                [prompt.ids for prompt in prompts],
                adapter=adapter,
                max_new_tokens=self.max_new_tokens,
                token_budget=self.token_budget,
                advance=advance,
            )
        replies = []
        for prompt, continuation in zip(prompts, continuations, strict=True):
            generated = template.reader.decode(continuation.ids)
            spoken = template.reader.read(generated, prompt.text)
            replies.append(Reply(spoken.text, spoken.calls, continuation.ended, generated, spoken.thought))
        return replies

    def losses(self, model: ModelKey) -> list[Sums]:
        with self._speaking(model) as adapter:
            return row_losses(self.model, self.rows, adapter=adapter)

    @contextmanager
    def _speaking(self, model: ModelKey) -> Iterator[bool]:
        """Within it the weights are those of the model, with the adapter on or off as is yielded."""
        with nullcontext() if model != "start" or self.start is None else self.model.wearing(self.start):
            yield model != "base"


def row_losses(model: TunedModel, rows: Sequence[Row], *, adapter: bool) -> list[Sums]:
    """Of each row the sums over its supervised tokens, with their number, by the masks of training.

    Raises: TrainingError, where a loss is not finite, or a row does not fit into the memory.
    """
    import torch

    with torch.no_grad(), nullcontext() if adapter else model.model.disable_adapter():
        return [_row_loss(model, row) for row in rows]


def _row_loss(model: TunedModel, row: Row) -> Sums:
    """Of a pair those of its preferred answer, and by how much that is the likelier one."""
    from trainer.training.loss import plain_sums

    sums = model.ranks.tried(lambda: [plain_sums(model.model, example) for example in row.examples])
    if sums is None:
        raise TrainingError(
            f"{row.conversation.place}: a row of {row.num_tokens:,} tokens does not fit into the memory; leave it out"
        )
    examples, likelier = row.examples, dict[str, tuple[float, float]]()
    if row.conversation.non_preferred:
        preferred, other = (float(each.nll) for each in sums)
        likelier = {"preference": (float(preferred < other), 1.0), "margin": (other - preferred, 1.0)}
        examples, sums = examples[:1], sums[:1]
    nll = sum(float(each.nll) for each in sums)
    num_correct = sum(float(each.num_correct) for each in sums)
    num_supervised = sum(example.num_supervised for example in examples)
    if not all(math.isfinite(total) for total in (nll, *(total for total, _ in likelier.values()))):
        raise TrainingError(f"{row.conversation.place}: the loss is not finite, expected a number; train anew")
    return {"loss": (nll, num_supervised), "token_accuracy": (num_correct, num_supervised)} | likelier
