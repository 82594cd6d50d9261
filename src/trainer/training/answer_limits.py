"""Number of held-out rows that base and tuned model answer, and length of an answer: `auto` becomes numbers."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from trainer.config.schema import EvaluationConfig
from trainer.data.render.rendering import IGNORE_INDEX

if TYPE_CHECKING:
    from trainer.data.conversations import Conversation
    from trainer.training.dataset import Row

ANSWERS = 50  # the same on every machine, so that two runs of one config answer the same rows
ROOM = 1.5  # an answer may be this much longer than the longest reference before it is cut off
NEW_TOKENS = (64, 1024)  # never cut off before, never generated beyond


def resolve_limits(
    settings: EvaluationConfig, rows: Sequence["Row"], train_reasoning: bool | str = True
) -> EvaluationConfig:
    """The settings with numbers that suit `rows`; numbers that are given stay.

    A model generates the thoughts of its rows also where those are not trained.
    """
    num_answers = sum(message.trained for row in rows for message in row.conversation.messages)
    longest = _longest_answer(rows) + (_longest_thought(rows) if train_reasoning is False else 0)
    return limits_for(settings, len(rows), num_answers, longest)


def limits_for(settings: EvaluationConfig, num_rows: int, num_answers: int, longest: int) -> EvaluationConfig:
    """The same for rows that somebody else has counted; `longest` is an answer's tokens."""
    numbers: dict[str, int] = {}
    if settings.max_rows == "auto":
        numbers["max_rows"] = max(1, round(ANSWERS * num_rows / num_answers)) if num_answers else ANSWERS
    if settings.max_new_tokens == "auto":
        fewest, most = NEW_TOKENS
        numbers["max_new_tokens"] = min(max(fewest, math.ceil(ROOM * longest)), most)
    return settings.model_copy(update=numbers)


def _longest_answer(rows: Sequence["Row"]) -> int:
    """Tokens of the longest stretch of supervised tokens."""
    return max(
        (
            sum(1 for _ in stretch)
            for row in rows
            for example in row.examples
            for supervised, stretch in groupby(example.labels, key=lambda label: label != IGNORE_INDEX)
            if supervised
        ),
        default=0,
    )


def _longest_thought(rows: Sequence["Row"]) -> int:
    """Tokens of the longest thought before a trained answer, estimated by its characters: no mask tells them."""
    return max((math.ceil(_thought_share(row.conversation) * row.num_tokens) for row in rows), default=0)


def _thought_share(conversation: "Conversation") -> float:
    """Share of a conversation's characters that are its longest thought."""
    messages = conversation.messages
    total = sum(len(message.content or "") + len(message.reasoning_content or "") for message in messages)
    return max(len(message.reasoning_content or "") for message in messages) / max(total, 1)
