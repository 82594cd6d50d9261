"""What data files hold, in numbers: rows, turns, text and calls, and tokens where a model's tokenizer is given."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trainer.data.conversations import Conversation, Message
from trainer.data.files.spread import Spread, spread
from trainer.data.files.token_stats import TokenStatistics, measure_tokens
from trainer.data.read.checks import DataReport, check_files
from trainer.data.render.overlength import split_turns
from trainer.data.render.rendering import Renderer
from trainer.data.rules.across_rows import system_prompt
from trainer.errors import DataError


@dataclass(frozen=True, slots=True)
class RowStatistics:
    """Training rows or held-out rows; all but `rows` is about those without an error, of which there is one at least.

    A turn is a user message with what follows it. Characters are those of messages and calls.
    """

    rows: int
    rows_with_errors: int
    turns: Spread
    characters: Spread
    system_prompts: int
    rows_without_system_prompt: int
    answers: int
    untrained_answers: int  # of weight 0
    tool_calls: int
    rows_with_tools: int
    duplicates: int
    near_duplicates: int
    same_prompts: int


@dataclass(frozen=True, slots=True)
class Part:
    """Training rows, or held-out rows; `tokens` is None without a tokenizer, or where it can render none of them."""

    rows: RowStatistics
    tokens: TokenStatistics | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self.rows) | {"tokens": None if self.tokens is None else self.tokens.to_json()}


@dataclass(frozen=True, slots=True)
class Statistics:
    """The training rows, the held-out rows if there are any, and how many of these are trained on too."""

    train: Part
    validation: Part | None
    leaks: int

    def to_json(self) -> dict[str, Any]:
        held_out = None if self.validation is None else self.validation.to_json()
        return {"train": self.train.to_json(), "validation": held_out, "leaks": self.leaks}


def measure_files(
    train: Sequence[Path], validation: Sequence[Path], renderer: Renderer | None = None, max_length: int = 0
) -> Statistics:
    """The statistics of the files' rows; with `renderer` those in tokens too.

    Raises: DataError, with every error, where a side has no row without one.
    """
    report = check_files(train, validation)
    if not report.conversations or (validation and not report.validation):
        raise DataError(*map(str, report.errors))
    parts = [Part(_measure_rows(report, report.conversations, report.rows, train), None)]
    if validation:
        parts.append(Part(_measure_rows(report, report.validation, report.validation_rows, validation), None))
    if renderer is not None:
        sides = zip(parts, (report.conversations, report.validation), strict=False)
        parts = [replace(part, tokens=measure_tokens(rows, renderer, max_length)) for part, rows in sides]
    leaks = sum(finding.code == "LEAK" and finding.line is not None for finding in report.findings)
    return Statistics(parts[0], parts[1] if validation else None, leaks)


def _measure_rows(
    report: DataReport, rows: Sequence[Conversation], num_rows: int, files: Sequence[Path]
) -> RowStatistics:
    names = set(map(str, files))
    codes = [found.code for found in report.findings if found.file in names and found.line is not None]
    prompts = [system_prompt(row) for row in rows]
    answers = [message for row in rows for message in row.messages if message.role == "assistant"]
    return RowStatistics(
        rows=num_rows,
        rows_with_errors=num_rows - len(rows),
        turns=spread([len(split_turns(row.messages)[1]) for row in rows]),
        characters=spread([sum(map(_num_characters, row.messages)) for row in rows]),
        system_prompts=len({prompt for prompt in prompts if prompt is not None}),
        rows_without_system_prompt=prompts.count(None),
        answers=len(answers),
        untrained_answers=sum(not answer.trained for answer in answers),
        tool_calls=sum(len(answer.tool_calls) for answer in answers),
        rows_with_tools=sum(bool(row.tools) for row in rows),
        duplicates=codes.count("DUPLICATE"),
        near_duplicates=codes.count("NEAR_DUPLICATE"),
        same_prompts=codes.count("SAME_PROMPT"),
    )


def _num_characters(message: Message) -> int:
    return len(message.content or "") + sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
