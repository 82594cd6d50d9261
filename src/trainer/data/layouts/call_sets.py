"""Rows of the public data sets of function calls that have a layout of their own: Glaive's and xLAM's."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from trainer.data.json_scanner import JsonProblem
from trainer.data.layouts.messages import NotConvertible, Row
from trainer.data.quoting import quoted
from trainer.data.strict_json import parse

_SPEAKER = re.compile(r"(?:\A|\n\s*\n|<\|endoftext\|>)\s*(USER|ASSISTANT|FUNCTION RESPONSE):[ \t]*")
_ROLES = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}
_CALL = "<functioncall>"
_END = "<|endoftext|>"
# Glaive writes the arguments as JSON between single quotes.
_QUOTED_CALL = re.compile(r"""\{\s*"name":\s*"(?P<name>[^"]+)",\s*"arguments":\s*'(?P<arguments>.*)'\s*\}""", re.DOTALL)
_DECODER = json.JSONDecoder()
# xLAM writes the types of parameters as Python does.
_PYTHON_TYPES = {
    "str": "string", "string": "string", "int": "integer", "integer": "integer", "float": "number",
    "number": "number", "bool": "boolean", "boolean": "boolean", "dict": "object", "object": "object",
    "list": "array", "array": "array", "tuple": "array", "set": "array",
}  # fmt: skip


def of_glaive(row: Mapping[str, Any], dropped: Counter[str]) -> Row:
    """A row of the texts `system` and `chat`, the functions written in the first, as a chat row."""
    chat, system = row["chat"], row.get("system", "")
    if not isinstance(chat, str) or not isinstance(system, str):
        raise NotConvertible(f"chat is {quoted(chat)} and system {quoted(system)}, expected texts")
    said = _SPEAKER.split(chat)
    if said[0].strip() or len(said) < 3:
        raise NotConvertible(f"chat is {quoted(chat)}, expected turns that begin with USER:, ASSISTANT:")
    messages = [
        _turn(speaker, text, index) for index, (speaker, text) in enumerate(zip(said[1::2], said[2::2], strict=True))
    ]
    prompt, tools = _offered(system)
    for key in row.keys() - {"chat", "system"}:
        dropped[key] += 1
    made: Row = {"messages": [*([{"role": "system", "content": prompt}] if prompt else []), *messages]}
    return made | ({"tools": tools} if tools else {})


def _turn(speaker: str, text: str, index: int) -> Row:
    text = text.replace(_END, "").strip()
    if speaker != "ASSISTANT" or _CALL not in text:
        return {"role": _ROLES[speaker], "content": text}
    before, *calls = (part.strip() for part in text.split(_CALL))
    made = [{"type": "function", "function": _function(call, index)} for call in calls]
    return {"role": "assistant", **({"content": before} if before else {}), "tool_calls": made}


def _function(text: str, index: int) -> Row:
    """The call, whose arguments stand as JSON, bare or between single quotes."""
    if found := _QUOTED_CALL.fullmatch(text):
        value: Any = {"name": found["name"], "arguments": parse(found["arguments"].replace("\\'", "'"))}
    else:
        value = parse(text)
    match value:
        case {"name": str(name), "arguments": dict(arguments)}:
            return {"name": name, "arguments": arguments}
        case {"name": str(name), **rest} if not rest:
            return {"name": name, "arguments": {}}
    raise NotConvertible(f"chat calls {quoted(text)} in turn {index + 1}, expected JSON with name and arguments")


def _offered(system: str) -> tuple[str, list[Any]]:
    """The prompt without the functions that stand at its end, and those."""
    text = system.strip().removeprefix("SYSTEM:").strip()
    head, brace, rest = text.partition("{")
    rest, tools = brace + rest, []
    while rest:
        try:
            tool, end = _DECODER.raw_decode(rest)
        except (ValueError, RecursionError):
            return text, []  # braces of a text, as a text
        tools.append({"type": "function", "function": tool})
        rest = rest[end:].lstrip(" \t\r\n,")
    return head.rstrip(" -\n"), tools


def of_xlam(row: Mapping[str, Any], dropped: Counter[str]) -> Row:
    """A row of a `query`, its `tools` and, as `answers`, the calls that answer it, as a chat row."""
    query = row["query"]
    if not isinstance(query, str):
        raise NotConvertible(f"query is {quoted(query)}, expected a text")
    calls, tools = _listed(row, "answers"), _listed(row, "tools")
    for key in row.keys() - {"query", "answers", "tools", "id"}:
        dropped[key] += 1
    if not calls:
        raise NotConvertible("answers is an empty list, expected calls; remove the row")
    answer = {"role": "assistant", "tool_calls": [_xlam_call(call) for call in calls]}
    return {"messages": [{"role": "user", "content": query}, answer], "tools": [_xlam_tool(tool) for tool in tools]}


def _listed(row: Mapping[str, Any], key: str) -> list[Any]:
    value = parse(row[key]) if isinstance(row[key], str) else row[key]
    if isinstance(value, JsonProblem) or not isinstance(value, list):
        raise NotConvertible(f"{key} is {quoted(row[key])}, expected a list, or its JSON")
    return value


def _xlam_call(call: Any) -> Row:
    match call:
        case {"name": str(name), "arguments": dict(arguments)}:
            return {"type": "function", "function": {"name": name, "arguments": arguments}}
    raise NotConvertible(f"answers holds {quoted(call)}, expected name and arguments")


def _xlam_tool(tool: Any) -> Row:
    match tool:
        case {"type": "function", "function": dict()}:
            return dict(tool)
        case {"name": str(name), "parameters": {"type": "object", "properties": dict()} as schema}:
            parameters: Row = dict(schema)
        case {"name": str(name), "parameters": dict(fields)}:
            parameters = _schema(fields)
        case _:
            raise NotConvertible(f"tools holds {quoted(tool)}, expected name, description and parameters")
    described = {"description": tool["description"]} if isinstance(tool.get("description"), str) else {}
    return {"type": "function", "function": {"name": name, **described, "parameters": parameters}}


def _schema(fields: Mapping[str, Any]) -> Row:
    """Parameters that are `name: {type: "int, optional", description, default}` as a JSON Schema."""
    properties: Row = {}
    required: list[str] = []
    for name, field in fields.items():
        if not isinstance(field, dict):
            raise NotConvertible(f"tools has the parameter {quoted(name)} as {quoted(field)}, expected an object")
        written = str(field.get("type", "")).strip()
        kind, _, others = written.partition(",")
        is_generic = written.count("[") > 0
        kind, is_optional = (written, "optional" in written) if is_generic else (kind, "optional" in others)
        known = {key: value for key, value in field.items() if key in ("description", "enum")}
        if field.get("default") not in (None, ""):
            known["default"] = field["default"]
        properties[name] = _type_of(kind) | known
        if not is_optional and "default" not in field:
            required.append(name)
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _type_of(written: str) -> Row:
    """JSON Schema's type for Python's; none for what has no single one, such as a union."""
    name, _, inner = written.partition("[")
    found = _PYTHON_TYPES.get(name.strip().lower())
    if found == "array":
        return {"type": found, "items": _type_of(inner.rpartition("]")[0])}
    return {"type": found} if found else {}
