"""Files become rendered rows: read, check every rule, render, apply the length policy. All problems at once."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.config.schema import DataConfig
from trainer.data.checks import DataReport, check_files
from trainer.data.conversations import Conversation
from trainer.data.overlength import Touched, apply_policy
from trainer.data.rendering import Example, Renderer, RenderingError
from trainer.errors import DataError
from trainer.training import token_cache
from trainer.training.token_cache import Tokens, find_cache


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


@dataclass(frozen=True)
class TrainingData:
    """Everything that a run trains and validates on."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    weights: dict[str, float]  # how often an epoch uses each training file
    touched: tuple[Touched, ...]
    report: DataReport

    @property
    def num_supervised(self) -> int:
        return sum(row.num_supervised for row in self.train)

    @property
    def num_tokens(self) -> int:
        return sum(row.num_tokens for row in self.train)

    @property
    def longest(self) -> int:
        rows = (*self.train, *self.validation)
        return max(len(example.input_ids) for row in rows for example in row.examples)

    def has_role(self, role: str) -> bool:
        """Whether any message has `role`."""
        rows = (*self.train, *self.validation)
        return any(message.role == role for row in rows for message in row.conversation.messages)


def check_data(settings: DataConfig) -> DataReport:
    """Read every file and check every rule that needs no tokenizer.

    Raises: DataError, with every row that breaks a rule.
    """
    report = check_files(
        [Path(source.path) for source in settings.train_sources],
        [Path(path) for path in settings.validation_paths],
        backend="local",
        allow_leak=settings.allow_leak,
    )
    report.raise_on_errors()
    return report


def render_data(report: DataReport, settings: DataConfig, renderer: Renderer, max_length: int) -> TrainingData:
    """Render all rows and apply the length policy.

    Raises: DataError, with every row that the model's template cannot render exactly or that is too long.
    """
    files = [*(source.path for source in settings.train_sources), *settings.validation_paths]
    splits = report.conversations, report.validation
    num_rows = len(splits[0]), len(splits[1])
    cache = find_cache(files, settings, renderer, max_length) if sum(num_rows) >= token_cache.MIN_ROWS else None
    if cache is not None and (found := cache.load(num_rows)) is not None:
        tokens, touched = found
    else:
        tokens, touched = _render_both(splits, renderer, settings, max_length)
        if cache is not None:
            cache.store(tokens, touched)
    train, validation = (
        tuple(Row(conversation, tuple(examples)) for conversation, examples in zip(*pair, strict=True) if examples)
        for pair in zip(splits, tokens, strict=True)
    )
    weights = {source.path: source.weight for source in settings.train_sources}
    return TrainingData(train, validation, weights, tuple(touched), report)


def _render_both(
    splits: Sequence[Sequence[Conversation]], renderer: Renderer, settings: DataConfig, max_length: int
) -> tuple[Tokens, list[Touched]]:
    """Raises: DataError, as `render_data` does."""
    problems: list[str] = []
    touched: list[Touched] = []
    train, validation = (
        _render_all(conversations, renderer, settings, max_length, problems, touched) for conversations in splits
    )
    problems += _overlength_problems(touched, max_length)
    if not any(train) and not problems:
        problems.append(f"data.train: no row is left after dropping those over max_length={max_length}; raise it")
    if problems:
        raise DataError(*problems)
    return (train, validation), touched


def render_rows(
    conversations: Sequence[Conversation], settings: DataConfig, renderer: Renderer, max_length: int
) -> tuple[tuple[Row, ...], tuple[Touched, ...]]:
    """Render rows that are not trained on, and apply the length policy. Raises: DataError, as `render_data` does."""
    problems: list[str] = []
    touched: list[Touched] = []
    rendered = _render_all(conversations, renderer, settings, max_length, problems, touched)
    if problems := problems + _overlength_problems(touched, max_length):
        raise DataError(*problems)
    pairs = zip(conversations, rendered, strict=True)
    return tuple(Row(conversation, tuple(examples)) for conversation, examples in pairs if examples), tuple(touched)


def _render_all(
    conversations: Sequence[Conversation],
    renderer: Renderer,
    settings: DataConfig,
    max_length: int,
    problems: list[str],
    touched: list[Touched],
) -> list[list[Example]]:
    """The examples of each conversation, none where it is left out."""
    rendered: list[list[Example]] = []
    for conversation in conversations:
        examples: list[Example] = []
        try:
            examples = renderer.render(conversation)
            examples, note = apply_policy(conversation, examples, renderer, max_length, settings.on_overlength)
        except RenderingError as error:
            problems.append(f"{conversation.place}: TEMPLATE: {error}")
            note = None
        if note is not None:
            touched.append(note)
        rendered.append(examples)
    return rendered


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


def sha256_of(path: str) -> str:
    """Digest of a data file's bytes, for the manifest."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
