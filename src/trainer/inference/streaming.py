"""A model's text as it comes, with the tool calls taken out of it."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from trainer.inference.replies import ReplyReader
from trainer.inference.tool_calls import Call

TEXT_TYPES = {"string", None}


def split_stream(
    pieces: Iterable[str], reader: ReplyReader, prompt: str, tools: Sequence[Mapping[str, Any]]
) -> Iterator[str | Call]:
    """Text as soon as it cannot be the beginning of a call; then the calls. `pieces` hold control tokens."""
    opening = reader.form.brackets.opening.strip() if reader.form else None
    text, shown = "", 0
    for piece in pieces:
        text += piece
        safe = max(shown, len(text) if opening is None else _safe(text, opening))
        yield from _visible(text[shown:safe], reader)
        shown = safe
    calls = reader.read(_without_end(text, reader), prompt).calls
    if not calls:
        yield from _visible(text[shown:], reader)
    for call in calls:
        yield typed(call, tools)


def _safe(text: str, opening: str) -> int:
    """How many characters of `text` stand before anything that is, or may become, the opening of a call."""
    if not opening:  # a call is the whole answer and begins as JSON does
        return 0 if text.lstrip()[:1] in ("", "{", "[") else len(text)
    if (at := text.find(opening)) >= 0:
        return at
    overlaps = (length for length in range(min(len(opening), len(text)), 0, -1) if text.endswith(opening[:length]))
    return len(text) - next(overlaps, 0)


def _without_end(text: str, reader: ReplyReader) -> str:
    """The text without the control token that ends it."""
    tokens = list(reader.template.control_token.finditer(text))
    return text[: tokens[-1].start()] if tokens and not text[tokens[-1].end() :].strip() else text


def _visible(text: str, reader: ReplyReader) -> Iterator[str]:
    if visible := reader.template.control_token.sub("", text):
        yield visible


def typed(call: Call, tools: Sequence[Mapping[str, Any]]) -> Call:
    """The call with the types that its tool declares, where the template's form writes every argument as text."""
    for tool in tools:
        if tool["function"]["name"] == call.name:
            declared = tool["function"].get("parameters", {}).get("properties", {})
            found = {key: _value(value, declared.get(key, {}).get("type")) for key, value in call.arguments.items()}
            return Call(call.name, found)
    return call


def _value(value: Any, declared: Any) -> Any:
    if not isinstance(value, str) or isinstance(declared, list) or declared in TEXT_TYPES:
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
