"""Which held-out rows base and tuned model answer, and how much of reading and writing that is at most."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.backends.openai.tokens import PER_ROW, Measure, encoding_for, message_tokens, row_tokens
from trainer.config.schema import EvaluationConfig, RunConfig
from trainer.data.conversations import Conversation
from trainer.inference.evaluation.held_out import draw
from trainer.training.answer_limits import limits_for
from trainer.training.plan import DEFAULT_SEED


@dataclass(frozen=True, slots=True)
class Exam:
    """The rows and limits of a comparison; the numbers are for one model."""

    rows: tuple[Conversation, ...]
    total: int
    limits: EvaluationConfig  # resolved
    num_answers: int
    num_input: int
    num_output: int


def plan_exam(config: RunConfig, rows: Sequence[Conversation], family: str) -> Exam | None:
    """The comparison that the config asks for; None where it asks for none, or nothing was held out."""
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
    return Exam(tuple(drawn), len(rows), limits, answers, read, answers * limits.max_new_tokens)


def resolve_limits(settings: EvaluationConfig, rows: Sequence[Conversation], measure: Measure) -> EvaluationConfig:
    """The settings with numbers that suit `rows`; numbers that are given stay."""
    answers = [message for row in rows for message in row.messages if message.trained]
    longest = max((message_tokens(message, measure) for message in answers), default=0)
    return limits_for(settings, len(rows), len(answers), longest)


def seed_of(config: RunConfig) -> int:
    """What decides which rows are drawn; the service's own seed is not known before."""
    return config.training.seed if isinstance(config.training.seed, int) else DEFAULT_SEED


def _read(row: Conversation, measure: Measure) -> int:
    """What is read to answer each trained message of a row: all that comes before it, each time anew."""
    tools = row_tokens(Conversation((), row.tools, row.file, row.line), measure) - PER_ROW
    read = before = 0
    for message in row.messages:
        if message.trained:
            read += PER_ROW + tools + before
        before += message_tokens(message, measure)
    return read
