"""The playground's form, read and checked: the conversation, the tools and the choice of the next token."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from trainer.data.json_scanner import JsonProblem
from trainer.data.strict_json import parse
from trainer.errors import ConfigError
from trainer.inference.client import ChatMessage, Sampling, Tool

MAX_CHARS = 500_000
ROLES = ("user", "assistant", "tool")
BOUNDS: dict[str, tuple[float, float, bool]] = {  # least, most, whole
    "max_tokens": (1, 4096, True),
    "temperature": (0, 2, False),
    "top_p": (0.01, 1, False),
    "seed": (0, 2**31 - 1, True),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A conversation that waits for an answer. `said` is without the system message."""

    system: str
    said: list[dict[str, Any]]
    tools: list[Tool]
    sampling: Sampling

    @property
    def messages(self) -> list[ChatMessage]:
        head = [{"role": "system", "content": self.system}] if self.system else []
        return [*head, *self.said]


def asked_of(form: Mapping[str, Any]) -> Asked:
    """The conversation of a form. Raises: ConfigError, with everything that is wrong."""
    problems: list[str] = []
    system, said, tools = str(form.get("system", "")).strip(), messages_of(form, problems), tools_of(form, problems)
    values = {name: _number(form, name, problems) for name in BOUNDS}
    if sum(len(str(part)) for part in (system, said, tools)) > MAX_CHARS:
        problems.append(f"messages: have more than {MAX_CHARS:,} characters, expected fewer; shorten them")
    if problems:
        raise ConfigError(*problems)
    sampling = Sampling(int(values["max_tokens"]), values["temperature"], values["top_p"], int(values["seed"]))
    return Asked(system, said, tools, sampling)


def messages_of(form: Mapping[str, Any], problems: list[str]) -> list[dict[str, Any]]:
    """The messages of a form with its question, where it has one, at their end; `problems` gets what is wrong."""
    value = parse(str(form.get("messages", "")))
    if not are_messages(value):
        problems.append("messages: hold no question, expected one; write one")
        return []
    if "question" in form:
        value = [*value, next_message(value, str(form["question"]))]
    if not value or (value[-1]["role"] != "assistant" and not str(value[-1].get("content") or "").strip()):
        problems.append("messages: hold no question, expected text; write one")
        return []
    return value


def are_messages(value: object) -> TypeGuard[list[dict[str, Any]]]:
    """True of a conversation as this page writes it; what a browser sends back may be anything."""
    return isinstance(value, list) and all(
        isinstance(one, dict)
        and one.get("role") in ROLES
        and all(isinstance(one.get(key, ""), str) for key in ("content", "reasoning_content", "tool_call_id"))
        and are_calls(one.get("tool_calls", []))
        for one in value
    )


def are_calls(value: object) -> bool:
    """True of an answer's tool calls."""
    return isinstance(value, list) and all(
        isinstance(call, dict)
        and isinstance(call.get("id"), str)
        and isinstance(function := call.get("function"), dict)
        and all(isinstance(function.get(key), str) for key in ("name", "arguments"))
        for call in value
    )


def open_calls(said: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Tool calls that have no result yet."""
    done = {message.get("tool_call_id") for message in said if message["role"] == "tool"}
    return [call for message in said for call in message.get("tool_calls") or () if call["id"] not in done]


def next_message(said: Sequence[Mapping[str, Any]], text: str) -> dict[str, Any]:
    """The result of the first open tool call, in place of the tool; without one the next question."""
    calls = open_calls(said)
    return (
        {"role": "tool", "tool_call_id": calls[0]["id"], "content": text}
        if calls
        else {"role": "user", "content": text}
    )


def answer_message(said: Sequence[Mapping[str, Any]], text: str, calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An answer as the message after `said`; its calls get the ids that follow."""
    if not calls:
        return {"role": "assistant", "content": text.strip()}
    number = sum(len(message.get("tool_calls") or ()) for message in said)
    made = [
        {"id": f"call_{number + at}", "type": "function", "function": dict(call)} for at, call in enumerate(calls, 1)
    ]
    return {"role": "assistant", **({"content": text.strip()} if text.strip() else {}), "tool_calls": made}


def tools_of(form: Mapping[str, Any], problems: list[str]) -> list[Tool]:
    """The tools of a form; `problems` gets what is wrong."""
    text = str(form.get("tools", "")).strip()
    if not text:
        return []
    value = parse(text)
    if isinstance(value, JsonProblem):
        problems.append(f"tools: column {value.column}: {value.found}, expected {value.accepted}; correct it")
        return []
    if not isinstance(value, list) or not all(
        isinstance(tool, dict) and isinstance(tool.get("function"), dict) for tool in value
    ):
        problems.append('tools: are no list of tools, expected [{"type": "function", "function": {…}}]; correct them')
        return []
    return value


def _number(form: Mapping[str, Any], name: str, problems: list[str]) -> float:
    least, most, whole = BOUNDS[name]
    text = str(form.get(name, "")).strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most or (whole and value != int(value)):
        what = "a whole number" if whole else "a number"
        problems.append(f"{name}: is {text[:40]!r}, expected {what} from {least:g} to {most:,g}; correct it")
        return 0.0
    return value


def pretty(value: Any) -> str:
    """JSON for a text field."""
    return json.dumps(value, indent=2, ensure_ascii=False)
