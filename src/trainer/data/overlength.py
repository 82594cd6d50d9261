"""Rows longer than `data.max_length`: refused, left out, or shortened by whole turns; each one is named."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from trainer.data.conversations import Conversation, Message
from trainer.data.rendering import Example, Renderer

Policy = Literal["error", "drop", "truncate"]


@dataclass(frozen=True, slots=True)
class Touched:
    """A row that was too long, and what became of it."""

    place: str
    num_tokens: int
    outcome: Literal["error", "dropped", "truncated"]


def in_words(touched: Sequence[Touched], max_length: int) -> str:
    """How many rows were too long, and what became of them."""
    rows = "row is" if len(touched) == 1 else "rows are"
    counts = Counter(note.outcome for note in touched)
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(counts.items()))
    return f"{len(touched):,} {rows} longer than {max_length:,} tokens: {outcomes}"


def longest(examples: Sequence[Example]) -> int:
    """Tokens of the longest example of a row."""
    return max((len(example.input_ids) for example in examples), default=0)


def apply_policy(
    conversation: Conversation, examples: list[Example], renderer: Renderer, max_length: int, policy: Policy
) -> tuple[list[Example], Touched | None]:
    """The row's examples under `policy`, and a note when the row was too long.

    `truncate` removes whole turns from the oldest on. The system prompt and the last turn stay, and no answer is cut;
    a row that is still too long is an error.
    """
    num_tokens = longest(examples)
    if num_tokens <= max_length:
        return examples, None
    if policy == "drop":
        return [], Touched(conversation.place, num_tokens, "dropped")
    if policy == "truncate":
        for shorter in shortened(conversation):
            fitting = renderer.render(shorter)
            if longest(fitting) <= max_length:
                return fitting, Touched(conversation.place, num_tokens, "truncated")
    return [], Touched(conversation.place, num_tokens, "error")


def shortened(conversation: Conversation) -> list[Conversation]:
    """The conversation without its first turn, its first two, and so on, as long as something is trained."""
    head, turns = split_turns(conversation.messages)
    shorter = [(*head, *(message for turn in turns[start:] for message in turn)) for start in range(1, len(turns))]
    return [
        replace(conversation, messages=messages) for messages in shorter if any(message.trained for message in messages)
    ]


def split_turns(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The leading system messages, and the turns: each begins with a user message."""
    head: list[Message] = []
    turns: list[list[Message]] = []
    for message in messages:
        if message.role == "user" or (not turns and message.role not in ("system", "developer")):
            turns.append([message])
        elif turns:
            turns[-1].append(message)
        else:
            head.append(message)
    return head, turns
