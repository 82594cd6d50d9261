"""A model's text as it comes, with the tool calls taken out of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from trainer.inference.replies import ReplyReader
from trainer.inference.tool_calls import Call, before_call, typed


def split_stream(
    pieces: Iterable[str], reader: ReplyReader, prompt: str, tools: Sequence[Mapping[str, Any]]
) -> Iterator[str | Call]:
    """Text as soon as it cannot be the beginning of a call; then the calls. `pieces` hold control tokens."""
    opening = reader.form.opening if reader.form else None
    text, shown = "", 0
    for piece in pieces:
        text += piece
        safe = max(shown, len(text) if opening is None else before_call(text, opening))
        yield from _visible(text[shown:safe], reader)
        shown = safe
    calls = reader.read(_without_end(text, reader), prompt).calls
    if not calls:
        yield from _visible(text[shown:], reader)
    for call in calls:
        yield typed(call, tools)


def _without_end(text: str, reader: ReplyReader) -> str:
    """The text without the control token that ends it."""
    tokens = list(reader.template.control_token.finditer(text))
    return text[: tokens[-1].start()] if tokens and not text[tokens[-1].end() :].strip() else text


def _visible(text: str, reader: ReplyReader) -> Iterator[str]:
    if visible := reader.template.control_token.sub("", text):
        yield visible
