"""A line of a file as a person is shown it: its messages as far as it has any, whatever is wrong with them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.data.json_scanner import JsonProblem
from trainer.data.rules.messages import is_trained
from trainer.data.strict_json import parse

SHOWN_CHARS = 20_000  # of one message or line


@dataclass(frozen=True, slots=True)
class Said:
    """A message as a page shows it; `part` names the part of a preference row."""

    role: str
    text: str
    calls: tuple[str, ...] = ()
    is_trained: bool = False
    part: str = ""
    thought: str = ""


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A line of a file: its messages, or the line as it is where it is no row."""

    line: int
    said: tuple[Said, ...]
    raw: str
    tools: tuple[str, ...] = ()


def as_row(raw: bytes, line: int) -> ShownRow:
    """A line as its messages, as far as it has any."""
    text = raw.rstrip(b"\r\n").decode("utf-8", "replace")
    value = parse(text)
    if isinstance(value, JsonProblem) or not isinstance(value, dict):
        return ShownRow(line, (), text)
    names = tuple(str(_function(tool).get("name", "?")) for tool in _list(value.get("tools")))
    return ShownRow(line, tuple(_parts(value)), text, names)


def _parts(value: Mapping[str, Any]) -> Iterator[Said]:
    asked = value.get("input")
    pairs = isinstance(asked, dict)
    for message in _list(asked.get("messages") if isinstance(asked, dict) else value.get("messages")):
        yield _said(message, "", is_prompt=pairs)
    for part in ("preferred_output", "non_preferred_output"):
        for message in _list(value.get(part)):
            yield _said(message, part.replace("_output", "").replace("_", "-"))


def _said(message: Any, part: str, is_prompt: bool = False) -> Said:
    if not isinstance(message, dict):
        return Said("?", _json(message)[:SHOWN_CHARS], part=part)
    trained = is_trained(message) and not is_prompt and part != "non-preferred"
    calls = tuple(_call(call)[:SHOWN_CHARS] for call in _list(message.get("tool_calls")))
    content = message.get("content")
    text = _text(content) if content is not None or calls else _without_content(message)
    thought = _text(message.get("reasoning_content"))[:SHOWN_CHARS]
    return Said(str(message.get("role", "?"))[:40], text[:SHOWN_CHARS], calls, trained, part, thought)


def _call(call: Any) -> str:
    function = _function(call)
    return f"{function.get('name', '?')}({function.get('arguments', '')})" if function else _json(call)


def _function(holder: Any) -> Mapping[str, Any]:
    """The function of a tool or of a call; empty where it has none."""
    function = holder.get("function") if isinstance(holder, dict) else None
    return function if isinstance(function, dict) else {}


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "[image]")) if isinstance(part, dict) else _json(part) for part in content)
    if content is None:
        return ""
    return content if isinstance(content, str) else _json(content)


def _without_content(message: Mapping[str, Any]) -> str:
    """The rest of a message that says nothing, which shows what it holds instead."""
    rest = {key: value for key, value in message.items() if key != "role"}
    return _json(rest) if rest else ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
