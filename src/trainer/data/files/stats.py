"""Measure data files: rows, turns, text and calls, and tokens where a model's tokenizer is given."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from trainer.data.conversations import Conversation, Message
from trainer.data.files.languages import Languages, detect_languages
from trainer.data.read.checks import DataReport, check_files
from trainer.data.render.overlength import longest, split_turns
from trainer.data.render.rendering import Example, Renderer, RenderingError
from trainer.data.rules.across_rows import system_prompt
from trainer.errors import DataError
from trainer.kinds import learns_from_pairs

MAX_BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows whose measure is at least `first` and at most `last`; None where there is no upper end."""

    first: int
    last: int | None
    rows: int


@dataclass(frozen=True, slots=True)
class Spread:
    """A measure of all rows; `p95` is the least value that 95 % of the rows do not exceed."""

    total: int
    min: int
    median: float
    p95: int
    max: int
    histogram: tuple[Bin, ...]


def spread(values: Sequence[int]) -> Spread:
    """The spread of one value or more."""
    in_order = sorted(values)
    return Spread(
        total=sum(in_order),
        min=in_order[0],
        median=statistics.median(in_order),
        p95=_rank(in_order, 0.95),
        max=in_order[-1],
        histogram=histogram(in_order),
    )


def histogram(in_order: Sequence[int]) -> tuple[Bin, ...]:
    """Bins of a round width up to the 99th percentile, and one without an end for the values beyond.

    About as many as Sturges' rule has: 1 + log2 of the number of values.
    """
    low, high = in_order[0], _rank(in_order, 0.99)
    width = _round_width((high - low + 1) / min(MAX_BINS, 1 + math.log2(len(in_order))))
    start = low // width * width
    num_bins = (high - start) // width + 1
    counts = Counter(min((value - start) // width, num_bins) for value in in_order)
    edges = [start + width * number for number in range(num_bins + 1)]
    bins = [Bin(first, first + width - 1, counts[number]) for number, first in enumerate(edges[:-1])]
    return tuple(bins + [Bin(edges[-1], None, counts[num_bins])] * (counts[num_bins] > 0))


def _rank(in_order: Sequence[int], share: float) -> int:
    return in_order[math.ceil(share * len(in_order)) - 1]


def _round_width(width: float) -> int:
    """The least of 1, 2, 5, 10, 20, 50, … that is not below `width`."""
    power = int(10 ** max(math.floor(math.log10(width)), 0))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width)


@dataclass(frozen=True, slots=True)
class StepTokens:
    """Tokens of the steps of an epoch, of `counted_steps` of them; a count, and no time.

    `unshared` are those of each row alone, `padded` those of each row at the length of its step's longest, `computed`
    those that go through the model where rows of a step share their beginnings.
    """

    rows_per_step: int
    token_budget: int  # of a pack
    steps: int
    counted_steps: int
    padded: int
    unshared: int
    computed: int

    @property
    def fewer_than_unshared(self) -> float:
        """Times as many tokens without sharing."""
        return self.unshared / max(self.computed, 1)

    @property
    def fewer_than_padded(self) -> float:
        return self.padded / max(self.computed, 1)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "fewer_than_unshared": self.fewer_than_unshared,
            "fewer_than_padded": self.fewer_than_padded,
        }


@dataclass(frozen=True, slots=True)
class TokenMeasure:
    """The model whose tokens are counted; `steps` counts what training computes, where that is to be known."""

    renderer: Renderer
    max_length: int
    steps: Callable[[Sequence[Sequence[Example]]], StepTokens] | None = None


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """The rows as a model's tokenizer and chat template see them; `refused` are those that cannot be rendered.

    `unique` tokens are left where rows that begin alike share their beginning, as in a prefix tree.
    """

    tokens: Spread
    supervised: Spread
    unique: int
    max_length: int
    over_length: tuple[str, ...]
    rows_of_several_examples: int
    refused: tuple[str, ...]
    steps: StepTokens | None = None

    @property
    def supervised_share(self) -> float:
        return self.supervised.total / self.tokens.total

    @property
    def shared_prefix_share(self) -> float:
        return 1 - self.unique / self.tokens.total

    def to_json(self) -> dict[str, Any]:
        """The fields and the shares; a service that trains on the rows bills about `tokens.total` an epoch."""
        shares = {"supervised_share": self.supervised_share, "shared_prefix_share": self.shared_prefix_share}
        steps = None if self.steps is None else self.steps.to_json()
        return asdict(self) | shares | {"billed_per_epoch": self.tokens.total, "steps": steps}


def measure_tokens(rows: Sequence[Conversation], counter: TokenMeasure) -> TokenStatistics | None:
    """The statistics of `rows` in tokens; None where none of them can be rendered."""
    renderer, max_length = counter.renderer, counter.max_length
    rendered: list[tuple[Conversation, list[Example]]] = []
    refused: list[str] = []
    for row in rows:
        try:
            rendered.append((row, renderer.render(row)))
        except RenderingError as error:
            refused.append(f"{row.place}: TEMPLATE: {error}")
    if not rendered:
        return None
    examples = [example for _, made in rendered for example in made]
    return TokenStatistics(
        tokens=spread([sum(len(example.input_ids) for example in made) for _, made in rendered]),
        supervised=spread([sum(example.num_supervised for example in made) for _, made in rendered]),
        unique=num_unique_tokens([example.input_ids for example in examples]),
        max_length=max_length,
        over_length=tuple(row.place for row, made in rendered if longest(made) > max_length),
        rows_of_several_examples=sum(len(made) > 1 and not row.non_preferred for row, made in rendered),
        refused=tuple(refused),
        steps=None if counter.steps is None else counter.steps([made for _, made in rendered]),
    )


def num_unique_tokens(sequences: Sequence[Sequence[int]]) -> int:
    """The nodes of the trie of `sequences`: in sorted order each one shares the most with the one before it."""
    return sum(len(sequence) - shared for sequence, shared in _shared_with_previous(sorted(map(tuple, sequences))))


def _shared_with_previous(in_order: Sequence[Sequence[int]]) -> Iterator[tuple[Sequence[int], int]]:
    previous: Sequence[int] = ()
    for sequence in in_order:
        pairs = zip(sequence, previous, strict=False)
        yield sequence, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        previous = sequence


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
    roles: dict[str, int]  # messages by role
    languages: Languages | None = None  # None where no detector is installed
    pairs: "PairStatistics | None" = None  # None of chat rows


@dataclass(frozen=True, slots=True)
class PairStatistics:
    """Lengths of the answers of preference rows: where one side is longer, length alone tells which is preferred."""

    preferred_characters: Spread
    other_characters: Spread
    preferred_longer: int  # rows


@dataclass(frozen=True, slots=True)
class SideStatistics:
    """Training rows, or held-out rows; `tokens` is None without a tokenizer, or where it can render none of them."""

    rows: RowStatistics
    tokens: TokenStatistics | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self.rows) | {"tokens": None if self.tokens is None else self.tokens.to_json()}


@dataclass(frozen=True, slots=True)
class Statistics:
    """The training rows, the held-out rows if there are any, and how many of these are trained on too."""

    train: SideStatistics
    validation: SideStatistics | None
    leaks: int

    def to_json(self) -> dict[str, Any]:
        held_out = None if self.validation is None else self.validation.to_json()
        return {"train": self.train.to_json(), "validation": held_out, "leaks": self.leaks}


def measure_files(train: Sequence[Path], validation: Sequence[Path], counter: TokenMeasure | None = None) -> Statistics:
    """The statistics of the files' rows; with `counter` those in tokens too.

    Raises: DataError, with every error, where a side has no row without one.
    """
    return measure_report(check_files(train, validation), train, validation, counter)


def measure_report(
    report: DataReport,
    train: Sequence[Path],
    validation: Sequence[Path],
    counter: TokenMeasure | None = None,
) -> Statistics:
    """The same of files that have been read: `report` holds their rows and every finding."""
    if not report.conversations or (validation and not report.validation):
        raise DataError(*map(str, report.errors))
    parts = [SideStatistics(_measure_rows(report, report.conversations, report.rows, train), None)]
    if validation:
        parts.append(SideStatistics(_measure_rows(report, report.validation, report.validation_rows, validation), None))
    if counter is not None:
        alone = replace(counter, steps=None)  # held-out rows are no part of a step
        sides = zip(parts, (report.conversations, report.validation), (counter, alone), strict=False)
        parts = [replace(part, tokens=measure_tokens(rows, by)) for part, rows, by in sides]
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
        characters=spread([sum(map(_num_characters, (*row.messages, *row.non_preferred))) for row in rows]),
        system_prompts=len({prompt for prompt in prompts if prompt is not None}),
        rows_without_system_prompt=prompts.count(None),
        answers=len(answers),
        untrained_answers=sum(not answer.trained for answer in answers),
        tool_calls=sum(len(answer.tool_calls) for answer in answers),
        rows_with_tools=sum(bool(row.tools) for row in rows),
        duplicates=codes.count("DUPLICATE"),
        near_duplicates=codes.count("NEAR_DUPLICATE"),
        same_prompts=codes.count("SAME_PROMPT"),
        roles=dict(Counter(message.role for row in rows for message in row.messages).most_common()),
        languages=detect_languages(rows),
        pairs=_measure_pairs(rows) if learns_from_pairs(report.method) else None,
    )


def _measure_pairs(rows: Sequence[Conversation]) -> PairStatistics:
    preferred = [sum(map(_num_characters, row.messages[row.num_prompt :])) for row in rows]
    other = [sum(map(_num_characters, row.non_preferred)) for row in rows]
    longer = sum(mine > theirs for mine, theirs in zip(preferred, other, strict=True))
    return PairStatistics(spread(preferred), spread(other), longer)


def _num_characters(message: Message) -> int:
    said = (message.reasoning_content or "", message.content or "")
    return sum(map(len, said)) + sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
