"""Thoughts as other tools write them, as the key reasoning_content of an answer."""

import re
from typing import Any

Row = dict[str, Any]

NAMES = ("thinking", "reasoning")  # Ollama's and gpt-oss', OpenRouter's and vLLM's
_HOLDERS = ("messages", "input", "preferred_output", "non_preferred_output")
_TAGGED = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


def take_thought(message: Row) -> None:
    """Move the thought of an assistant message, in a key of another name or in tags, to reasoning_content.

    What is empty is no thought: templates write such tags before an answer without one. Two different thoughts stay as
    they are, for the rules to name.
    """
    for name in NAMES:
        if isinstance(thought := message.get(name), str) and message.get("reasoning_content") in (None, "", thought):
            message["reasoning_content"] = message.pop(name)
    content = _text(message.get("content"))
    if isinstance(content, str) and (tagged := _TAGGED.match(content)):
        thought, said = tagged[1].strip(), content[tagged.end() :]
        if not thought or message.get("reasoning_content") in (None, "", thought):
            message["reasoning_content"] = thought or message.get("reasoning_content", "")
            message["content"] = said
    if isinstance(thought := message.get("reasoning_content"), str) and not thought.strip():
        del message["reasoning_content"]


def _text(content: Any) -> Any:
    """Parts of text alone as one text; all else as it is."""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return content
    texts = [part.get("text") for part in content if part.get("type") == "text"]
    return "".join(texts) if len(texts) == len(content) and all(isinstance(text, str) for text in texts) else content


def with_thoughts(messages: list[Row]) -> list[Row]:
    """`messages`, each answer with its thought where the format has a place for it."""
    for message in messages:
        if message.get("role") == "assistant":
            take_thought(message)
    return messages


def without_thoughts(row: Row) -> Row:
    """A chat or preference row without the thoughts of its answers."""
    return {key: _thoughtless(value) if key in _HOLDERS else value for key, value in row.items()}


def _thoughtless(value: Any) -> Any:
    match value:
        case list():
            return [_thoughtless(one) for one in value]
        case {"role": _}:
            return {key: inner for key, inner in value.items() if key != "reasoning_content"}
        case {"messages": messages}:
            return value | {"messages": _thoughtless(messages)}
    return value
