"""Rows that other services read and write, in the words of the chat format: Anthropic, Gemini, batches of requests."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer.data.layouts.messages import NotConvertible, Row
from trainer.data.layouts.thoughts import NAMES as THOUGHT_NAMES
from trainer.data.quoting import quoted

_TEXTS = ("text", "input_text", "output_text")
_BLOCKS = ("tool_use", "tool_result", "thinking", "redacted_thinking", "image", "input_text", "output_text")
_KEYS_OF_ANSWER = ("role", "content", "reasoning_content", *THOUGHT_NAMES, "tool_calls", "refusal")
_NOT_CARRIED = ("cache_control", "citations")
# As Gemini's schemas spell them.
_TYPES = frozenset({"STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"})


def plain_messages(messages: object, dropped: Counter[str]) -> object:
    """`messages` with Anthropic's and the Responses API's content blocks as chat messages; all else as it is."""
    if not isinstance(messages, list):
        return messages
    return [made for index, message in enumerate(messages) for made in _plain(message, index, dropped)]


def _plain(message: Any, index: int, dropped: Counter[str]) -> list[Any]:
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list) or not any(_is_foreign(part) for part in content):
        return [message]
    parts = [part for part in content if isinstance(part, dict)]
    if len(parts) < len(content):
        raise NotConvertible(f"messages[{index}].content holds what is no object, expected content blocks")
    said = [made for part in parts if (made := _said(part, index, dropped)) is not None]
    calls = [_called(part, index) for part in parts if part.get("type") == "tool_use"]
    results = [_answered(part, index, dropped) for part in parts if part.get("type") == "tool_result"]
    joined = "".join(part["text"] for part in said) if all(part["type"] == "text" for part in said) else said
    thoughts = "\n\n".join(part["thinking"] for part in parts if isinstance(part.get("thinking"), str)).strip()
    rest = {key: value for key, value in message.items() if key != "content"}
    rest |= {"reasoning_content": thoughts} if thoughts else {}
    rest |= ({"content": joined} if joined else {}) | ({"tool_calls": calls} if calls else {})
    return [*results, *([rest] if joined or calls or not results else [])]


def _is_foreign(part: object) -> bool:
    return isinstance(part, dict) and (part.get("type") in _BLOCKS or any(key in part for key in _NOT_CARRIED))


def _said(part: Mapping[str, Any], index: int, dropped: Counter[str]) -> Row | None:
    """A block as a part of a message; None for calls, results and thoughts."""
    for key in _NOT_CARRIED:
        if part.get(key):
            dropped[f"messages[].content[].{key}"] += 1
    match part.get("type"):
        case "text" | "input_text" | "output_text":
            return {"type": "text", "text": _text(part.get("text"), f"messages[{index}].content[].text")}
        case "image":
            return {"type": "image_url", "image_url": {"url": _address(part.get("source"), index)}}
        case "redacted_thinking":
            dropped["messages[].content[].redacted_thinking"] += 1
            return None
        case "thinking" | "tool_use" | "tool_result":
            return None
        case "image_url":
            return dict(part)
    raise NotConvertible(f"messages[{index}].content holds a block of type {quoted(part.get('type'))}, expected text")


def _text(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    raise NotConvertible(f"{where} is {quoted(value)}, expected a text")


def _address(source: object, index: int) -> str:
    match source:
        case {"type": "base64", "media_type": str(media_type), "data": str(data)}:
            return f"data:{media_type};base64,{data}"
        case {"type": "url", "url": str(url)}:
            return url
    raise NotConvertible(f"messages[{index}].content holds an image as {quoted(source)}, expected base64 data or a URL")


def _called(part: Mapping[str, Any], index: int) -> Row:
    if not isinstance(part.get("name"), str):
        raise NotConvertible(f"messages[{index}] calls {quoted(part.get('name'))}, expected the name of a tool")
    call = {"type": "function", "function": {"name": part["name"], "arguments": part.get("input") or {}}}
    return {"id": part["id"], **call} if isinstance(part.get("id"), str) else call


def _answered(part: Mapping[str, Any], index: int, dropped: Counter[str]) -> Row:
    if part.get("is_error"):
        dropped["messages[].content[].is_error"] += 1
    content = part.get("content", "")
    if isinstance(content, list):
        where = f"messages[{index}].content[].content"
        content = "".join(_text(item.get("text") if isinstance(item, dict) else item, where) for item in content)
    answer = {"role": "tool", "content": _text(content, f"messages[{index}].content[].content")}
    return answer | ({"tool_call_id": part["tool_use_id"]} if isinstance(part.get("tool_use_id"), str) else {})


def system_text(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """`row` with a system prompt of text blocks, as Anthropic writes it, as one text."""
    match row.get("system"):
        case list(blocks) if blocks and all(
            isinstance(block, dict) and block.get("type") in _TEXTS for block in blocks
        ):
            return {**row, "system": "".join(_text(block.get("text"), "system[].text") for block in blocks)}
    return row


def of_batch(row: Mapping[str, Any], dropped: Counter[str]) -> Row:
    """A request of a batch, or of a log, with the answer beside it, as a chat row.

    Raises: NotConvertible, where question or answer is missing.
    """
    request = row.get("body", row.get("request"))
    request = request.get("body", request) if isinstance(request, dict) else request
    if not isinstance(request, dict) or not isinstance(messages := request.get("messages"), list):
        raise NotConvertible(
            "is an answer of the batch API without its request, expected both in a row, as request and response; "
            "join the two files by custom_id"
        )
    answer = _answer(row.get("response"))
    last = messages[-1] if messages else None
    if answer is None and not (isinstance(last, dict) and last.get("role") == "assistant"):
        raise NotConvertible(
            "is a request of the batch API without its answer, expected an assistant message at its end, or the "
            "answer beside it as response; join the two files by custom_id"
        )
    for key in request.keys() - {"messages", "tools", "parallel_tool_calls"}:
        dropped[f"the request's {key}"] += 1
    for key in row.keys() - {"body", "request", "response", "custom_id", "method", "url", "id", "error"}:
        dropped[key] += 1
    kept = {key: request[key] for key in ("tools", "parallel_tool_calls") if request.get(key) is not None}
    return {"messages": [*messages, *([answer] if answer is not None else [])], **kept}


def _answer(response: object) -> Any:
    if response is None:
        return None
    body = response.get("body", response) if isinstance(response, dict) else response
    match body:
        case {"choices": [{"message": dict(message)}]}:
            return {key: message[key] for key in _KEYS_OF_ANSWER if message.get(key)}
        case {"choices": [_, _, *_]}:
            raise NotConvertible("has several answers as response.choices, expected one; keep the one to train")
    raise NotConvertible(f"has {quoted(body)} as response, expected a chat completion; remove the row")


def of_gemini(row: Mapping[str, Any], dropped: Counter[str]) -> Row:
    """A row of `contents` with `parts`, with its systemInstruction and functionDeclarations, as a chat row."""
    contents = row["contents"]
    if not isinstance(contents, list) or not contents:
        raise NotConvertible(f"contents is {quoted(contents)}, expected a non-empty list of contents")
    instruction = row.get("systemInstruction", row.get("system_instruction"))
    system = "".join(_text(part.get("text"), "systemInstruction.parts[].text") for part in _parts(instruction))
    messages = [made for index, content in enumerate(contents) for made in _of_content(content, index, dropped)]
    known = {"contents", "systemInstruction", "system_instruction", "tools"}
    for key in row.keys() - known:
        dropped[key] += 1
    made: Row = {"messages": [*([{"role": "system", "content": system}] if system.strip() else []), *messages]}
    tools = [tool for group in _list(row.get("tools")) for tool in _declared(group)]
    return made | ({"tools": tools} if tools else {})


def _parts(content: Any) -> list[Any]:
    parts = _list(content.get("parts") if isinstance(content, dict) else content)
    if not all(isinstance(part, dict) for part in parts):
        raise NotConvertible(f"holds the parts {quoted(parts)}, expected objects")
    return parts


def _list(value: Any) -> list[Any]:
    """A list, or the one object that may stand in its place."""
    return value if isinstance(value, list) else [value] if isinstance(value, dict) else []


def _of_content(content: Any, index: int, dropped: Counter[str]) -> Iterator[Row]:
    """The results first, which answer the calls of the content before; then text and calls as one message."""
    where = f"contents[{index}]"
    text, thought, calls, others = "", "", [], False
    for part in _parts(content):
        match part:
            case {"thought": True, "text": str(said)}:
                thought += said
            case {"thought": True}:
                dropped["contents[].parts[].thought"] += 1
            case {"text": str(said)}:
                text += said
            case {"functionCall": {"name": str(name), **rest}} | {"function_call": {"name": str(name), **rest}}:
                calls.append({"type": "function", "function": {"name": name, "arguments": rest.get("args") or {}}})
            case {"functionResponse": {"response": said}} | {"function_response": {"response": said}}:
                others = True
                yield {"role": "tool", "content": said if isinstance(said, str) else _json(said)}
            case _:
                raise NotConvertible(f"{where}.parts holds {quoted(part)}, expected text, functionCall or its response")
    role = content.get("role", "user") if isinstance(content, dict) else "user"
    if text or calls or not others:
        yield {
            "role": role,
            **({"reasoning_content": thought} if thought.strip() else {}),
            **({"content": text} if text or not calls else {}),
            **({"tool_calls": calls} if calls else {}),
        }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _declared(group: Any) -> list[Row]:
    declared = (
        group.get("functionDeclarations", group.get("function_declarations")) if isinstance(group, dict) else None
    )
    if not isinstance(declared, list) or not all(isinstance(function, dict) for function in declared):
        raise NotConvertible(f"tools holds {quoted(group)}, expected functionDeclarations")
    return [{"type": "function", "function": {**function, **_schema_of(function)}} for function in declared]


def _schema_of(function: Mapping[str, Any]) -> Row:
    return {"parameters": _lower_types(function["parameters"])} if "parameters" in function else {}


def _lower_types(schema: Any) -> Any:
    """A schema with its types as JSON Schema spells them."""
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return [_lower_types(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value.lower() if key == "type" and isinstance(value, str) and value in _TYPES else _lower_types(value)
        for key, value in schema.items()
    }
