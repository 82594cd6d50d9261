"""Held-out rows that base and tuned model answer, their limits, and what the answers cost at most."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.backends.openai.names import launch_of
from trainer.backends.openai.price_list import ServicePrices
from trainer.backends.openai.prices import (
    PER_ROW,
    TokenMeasure,
    cost,
    encoding_for,
    message_tokens,
    row_tokens,
)
from trainer.backends.quote import Item
from trainer.config.schema import EvaluationConfig, RunConfig
from trainer.data.conversations import Conversation
from trainer.data.read.checks import check_files
from trainer.errors import ConfigError, DataError
from trainer.inference.evaluation.held_out import draw
from trainer.runs import Run
from trainer.training.answer_limits import limits_for
from trainer.training.plan import DEFAULT_SEED


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """Rows and limits of a comparison; the numbers are for one model."""

    rows: tuple[Conversation, ...]
    total: int
    limits: EvaluationConfig  # resolved
    num_answers: int
    num_input: int
    num_output: int

    def quoted(self, prices: ServicePrices) -> Item:
        """Its line of a quote: each answer of both models as long as it may become."""
        read, written = self.num_input, self.num_output
        shares = (("input", read), ("base_input", read), ("output", written), ("base_output", written))
        return Item(
            f"comparison: {self.num_answers:,} answers by base and tuned model, at most {read:,} tokens read "
            f"and {written:,} written by each",
            _sum([cost(tokens, getattr(prices, kind)) for kind, tokens in shares]),
            _sum([cost(tokens, prices.dearest(kind)) for kind, tokens in shares]),
        )


def _sum(amounts: Sequence[float | None]) -> float | None:
    """The sum, None where an amount is not known."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None


def plan_comparison(config: RunConfig, rows: Sequence[Conversation], family: str) -> ComparisonPlan | None:
    """The comparison that the config asks for; None where it asks for none, or no row is held out."""
    rows = [row for row in rows if not any(message.images for message in row.messages)]  # a request would lack them
    if not config.evaluation.enabled or not rows:
        return None
    _, measure = encoding_for(family)
    limits = resolve_limits(config.evaluation, rows, measure)
    assert isinstance(limits.max_rows, int)
    assert isinstance(limits.max_new_tokens, int)
    drawn = draw(rows, limits.max_rows, seed_of(config))
    answers = sum(message.trained for row in drawn for message in row.messages)
    read = sum(_read(row, measure) for row in drawn)
    return ComparisonPlan(tuple(drawn), len(rows), limits, answers, read, answers * limits.max_new_tokens)


def quoted_comparison(run: Run, config: RunConfig) -> ComparisonPlan:
    """The rows that were quoted. Raises: ConfigError, DataError, when there are none, or others now."""
    recorded = {file.path: file for file in run.manifest().files("validation")}.values()  # listed twice, read once
    change = "has changed since the run was made, expected the same rows; bring them back"
    if changed := [f"{file.path}: {change}" for file in recorded if not file.is_unchanged]:
        raise DataError(*changed)
    paths = [Path(file.path) for file in recorded]
    report = check_files([], paths, backend="openai", allow_leak=True, method=config.training.method)
    training = config.training.model_copy(update={"seed": run.manifest().seed})
    plan = plan_comparison(config.model_copy(update={"training": training}), report.validation, launch_of(run).family)
    if plan is None:
        raise ConfigError(
            f"run {run.name!r}: has nothing to compare with, expected data.validation and evaluation.enabled; "
            "start a new run with held-out rows"
        )
    return plan


def resolve_limits(settings: EvaluationConfig, rows: Sequence[Conversation], measure: TokenMeasure) -> EvaluationConfig:
    """The settings with numbers that suit `rows`; numbers that are given stay."""
    answers = [message for row in rows for message in row.messages if message.trained]
    longest = max((message_tokens(message, measure) for message in answers), default=0)
    return limits_for(settings, len(rows), len(answers), longest)


def seed_of(config: RunConfig) -> int:
    """The seed that draws the rows; the service's own is not known before."""
    return config.training.seed if isinstance(config.training.seed, int) else DEFAULT_SEED


def _read(row: Conversation, measure: TokenMeasure) -> int:
    """The tokens read for all answers of a row: each reads all that comes before it."""
    tools = row_tokens(Conversation((), row.tools, row.file, row.line), measure) - PER_ROW
    read = before = 0
    for message in row.messages:
        if message.trained:
            read += PER_ROW + tools + before
        before += message_tokens(message, measure)
    return read
