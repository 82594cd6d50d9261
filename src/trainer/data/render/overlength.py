"""Rows longer than `data.max_length`: refused, left out, or shortened by whole turns; each one is named."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from trainer.data.conversations import Conversation, Message
from trainer.data.render.rendering import Example, Renderer

Policy = Literal["error", "drop", "truncate"]


@dataclass(frozen=True, slots=True)
class Touched:
    """A row that was too long, and what became of it."""

    place: str
    num_tokens: int
    outcome: Literal["error", "dropped", "truncated"]


def in_words(touched: Sequence[Touched], max_length: int) -> str:
    """Count the rows that were too long, by their treatment."""
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
    return (
        (examples, None)
        if num_tokens <= max_length
        else too_long(conversation, num_tokens, renderer, max_length, policy)
    )


def too_long(
    conversation: Conversation, num_tokens: int, renderer: Renderer, max_length: int, policy: Policy
) -> tuple[list[Example], Touched]:
    """Treat a row of so many tokens by `policy`."""
    if policy == "drop":
        return [], Touched(conversation.place, num_tokens, "dropped")
    if policy == "truncate" and (found := shortened(conversation, renderer, max_length)):
        return found[1], Touched(conversation.place, num_tokens, "truncated")
    return [], Touched(conversation.place, num_tokens, "error")


def shortened(
    conversation: Conversation, renderer: Renderer, max_length: int
) -> tuple[Conversation, list[Example]] | None:
    """The conversation without as few of its first turns as it takes to fit, and its examples; None if nothing fits.

    Halving finds how many: the more turns are removed, the shorter is what is left.
    """
    head, turns = split_turns(conversation.messages)
    last = max((number for number, turn in enumerate(turns) if any(m.trained for m in turn)), default=0)
    fitting: tuple[Conversation, list[Example]] | None = None
    fewest, most = 1, last
    while fewest <= most:
        removed = (fewest + most) // 2
        rest = (message for turn in turns[removed:] for message in turn)
        messages = (*head, *rest)
        num_removed = len(conversation.messages) - len(messages)
        shorter = replace(conversation, messages=messages, num_prompt=max(0, conversation.num_prompt - num_removed))
        examples = _within(shorter, renderer, max_length)
        if examples is None:
            fewest = removed + 1
        else:
            fitting, most = (shorter, examples), removed - 1
    return fitting


def _within(conversation: Conversation, renderer: Renderer, max_length: int) -> list[Example] | None:
    if renderer.num_tokens_beyond(conversation, max_length) is not None:
        return None
    examples = renderer.render(conversation)
    return examples if longest(examples) <= max_length else None


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
