"""Checked rows become rendered ones, under the length policy. All problems at once."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from trainer.config.schema import DataConfig
from trainer.data.conversations import Conversation
from trainer.data.read.checks import DataReport
from trainer.data.read.sources import CheckedData, weights_of
from trainer.data.render.overlength import Touched
from trainer.data.render.rendering import Example, Renderer
from trainer.errors import DataError
from trainer.runs.manifest import DataFile
from trainer.training.render import RenderedRows, Rendering, num_workers, render
from trainer.training.token_cache import MIN_ROWS, find_cache
from trainer.training.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Row:
    """A conversation and what it is trained as: one example, or several where the template rewrites history."""

    conversation: Conversation
    examples: tuple[Example, ...]

    @property
    def num_tokens(self) -> int:
        return sum(len(example.input_ids) for example in self.examples)

    @property
    def num_supervised(self) -> int:
        return sum(example.num_supervised for example in self.examples)


class Rows(Sequence[Row]):
    """Rows that have an example, each made of `tokens` when it is asked for; the first conversation is row `first`."""

    def __init__(self, conversations: Sequence[Conversation], tokens: Tokens, first: int) -> None:
        counts = np.diff(tokens.firsts)[first : first + len(conversations)]
        self.numbers = first + np.flatnonzero(counts)
        self.tokens = tokens  # of these rows and maybe others; `numbers` are the places of these
        self.conversations = tuple(conversations[number - first] for number in self.numbers.tolist())
        self.num_tokens, self.num_supervised = tokens.num_tokens[self.numbers], tokens.num_supervised[self.numbers]

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, place: int | slice) -> Row | tuple[Row, ...]:
        if isinstance(place, slice):
            return tuple(self[number] for number in range(*place.indices(len(self))))
        return Row(self.conversations[place], self.tokens.examples(int(self.numbers[place])))

    def __len__(self) -> int:
        return len(self.conversations)


@dataclass(frozen=True)
class TrainingData:
    """Everything that a run trains and validates on."""

    train: Rows
    validation: Rows
    weights: dict[str, float]  # how often an epoch uses the rows of each training file
    touched: tuple[Touched, ...]
    report: DataReport
    files: tuple[DataFile, ...]

    @property
    def num_supervised(self) -> int:
        return int(self.train.num_supervised.sum())

    @property
    def num_tokens(self) -> int:
        return int(self.train.num_tokens.sum())

    @property
    def longest(self) -> int:
        return self.train.tokens.longest

    @property
    def has_thoughts(self) -> bool:
        """True where a trained answer holds <think>."""
        rows = self.train.conversations
        return any(m.trained and "<think>" in (m.content or "") for row in rows for m in row.messages)

    def has_role(self, role: str) -> bool:
        """True where a message has `role`."""
        rows = (*self.train.conversations, *self.validation.conversations)
        return any(message.role == role for row in rows for message in row.messages)


def render_data(
    checked: CheckedData, settings: DataConfig, renderer: Renderer, max_length: int, shared_by: int = 1
) -> TrainingData:
    """Render all rows and apply the length policy, on a machine that `shared_by` processes of the run share.

    Raises: DataError, with every row that the model's template cannot render exactly or that is too long.
    """
    report = checked.report
    num_rows = len(report.conversations), len(report.validation)
    cache = find_cache(checked.files, settings, renderer, max_length) if sum(num_rows) >= MIN_ROWS else None
    found = cache.load(num_rows) if cache is not None else None
    if found is None:
        found = _render_both(report, Rendering(renderer, max_length, settings.on_overlength), shared_by)
        if cache is not None:
            cache.store(*found, num_rows)
    tokens, touched = found
    train, validation = Rows(report.conversations, tokens, 0), Rows(report.validation, tokens, num_rows[0])
    return TrainingData(train, validation, weights_of(checked.files), tuple(touched), report, checked.files)


def _render_both(report: DataReport, rendering: Rendering, shared_by: int) -> tuple[Tokens, list[Touched]]:
    """The rows to train on, then those to validate. Raises: DataError, as `render_data` does."""
    conversations = [*report.conversations, *report.validation]
    made = render(conversations, rendering, num_workers(len(conversations), shared_by))
    problems = _problems(made, rendering.max_length)
    if not made.tokens.firsts[len(report.conversations)] and not problems:
        over = f"those over max_length={rendering.max_length}"
        problems.append(f"data.train: no row is left after dropping {over}; raise it")
    if problems:
        raise DataError(*problems)
    return made.tokens, made.touched


def render_rows(
    conversations: Sequence[Conversation], settings: DataConfig, renderer: Renderer, max_length: int
) -> tuple[tuple[Row, ...], tuple[Touched, ...]]:
    """Render rows that are not trained on, and apply the length policy. Raises: DataError, as `render_data` does."""
    made = render(conversations, Rendering(renderer, max_length, settings.on_overlength))
    if problems := _problems(made, max_length):
        raise DataError(*problems)
    return tuple(Rows(conversations, made.tokens, 0)), tuple(made.touched)


def _problems(made: RenderedRows, max_length: int) -> list[str]:
    """The rows that cannot be trained, behind the command that parts them out."""
    rows = [*map(str, made.problems), *_overlength_problems(made.touched, max_length)]
    if not made.problems:
        return rows
    files = " ".join(shlex.quote(file) for file in dict.fromkeys(problem.file for problem in made.problems))
    refused = f"{len(made.problems):,} {'row' if len(made.problems) == 1 else 'rows'}"
    advice = f"trainer data check {files} --config CONFIG --reject rejected.jsonl"
    return [
        f"data: this model's chat template cannot take {refused}, expected none; to set them aside: {advice}",
        *rows,
    ]


def _overlength_problems(touched: Sequence[Touched], max_length: int) -> list[str]:
    too_long = [note for note in touched if note.outcome == "error"]
    if not too_long:
        return []
    longest = max(too_long, key=lambda note: note.num_tokens)
    rows = "row exceeds" if len(too_long) == 1 else "rows exceed"
    summary = (
        f"data.max_length: {len(too_long):,} {rows} {max_length} tokens (longest {longest.num_tokens:,} at "
        f"{longest.place}); raise it, or set data.on_overlength to drop or truncate"
    )
    return [
        summary,
        *(f"{note.place}: LENGTH: has {note.num_tokens:,} tokens, expected at most {max_length}" for note in too_long),
    ]
