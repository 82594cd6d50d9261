"""Messages and tools of other layouts in the words of the chat format; what it has no place for is counted."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.data.json_scanner import JsonProblem
from trainer.data.layouts.thoughts import take_thought
from trainer.data.layouts.training_marks import TRAINED, UnclearMark, take_weight
from trainer.data.quoting import quoted
from trainer.data.rules.messages import KEYS_OF_ROLE
from trainer.data.strict_json import parse

Row = dict[str, Any]

ROLE_NAMES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
_KEY_NAMES = {"from": "role", "value": "content"}
_CALLERS = ("function_call", "tool_call")
_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_RESPONSE = re.compile(r"\s*<tool_response>\s*(.*?)\s*</tool_response>\s*", re.DOTALL)
# In a JSON Schema null is a value of these keys; of others it is what a table of rows leaves where a key is absent.
_TYPE = ("type", "function")  # which the Responses API writes beside the name
_KEYS_OF_NULL = frozenset({"default", "const", "example"})


class NotConvertible(ValueError):
    """A row that no chat row can be made of; the text says why."""


def chat_messages(messages: object, dropped: Counter[str], where: str = "messages") -> list[Row]:
    """`messages` with the chat format's roles and keys, nulls left out, and calls numbered where they have no id.

    Text, then calls, each as a turn of its own, are one answer.
    """
    if not isinstance(messages, list) or not messages:
        found = "is an empty list" if messages == [] else f"is {quoted(messages)}"
        raise NotConvertible(f"{where} {found}, expected a non-empty list of messages")
    result: list[Row] = []
    waiting: list[str] = []  # ids of calls without an answer
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise NotConvertible(f"{where}[{index}] is {quoted(message)}, expected an object with role and content")
        made = _message(message, index, dropped)
        if made.get("role") == "tool" and "tool_call_id" not in made and waiting:
            made["tool_call_id"] = waiting.pop(0)
        if _continues(made, result):
            previous = result.pop()
            made = previous | {"tool_calls": [*previous.get("tool_calls", []), *made["tool_calls"]]}
        if isinstance(calls := made.get("tool_calls"), list):
            waiting = [call["id"] for call in calls if isinstance(call, dict) and "id" in call]
        result.append(made)
    return result


def _continues(made: Row, before: Sequence[Row]) -> bool:
    """True if a message only calls, and the one before it is an answer, too, trained or not as this one is."""
    if not before or made.keys() - {"weight"} != {"role", "tool_calls"} or not isinstance(made["tool_calls"], list):
        return False
    previous = before[-1]
    is_answer = previous.get("role") == "assistant" and isinstance(previous.get("tool_calls", []), list)
    return is_answer and "function_call" not in previous and previous.get("weight", 1) == made.get("weight", 1)


def _message(message: Mapping[str, Any], index: int, dropped: Counter[str]) -> Row:
    made = {_KEY_NAMES.get(key, key): value for key, value in message.items() if value is not None}
    role = made.get("role")
    if isinstance(role, str) and role in _CALLERS:
        made |= {"role": "assistant", "tool_calls": _calls_in([made.pop("content", None)], index)}
    elif isinstance(role, str):
        made["role"] = ROLE_NAMES.get(role, role)
    role = made.get("role")
    if role == "assistant":
        try:
            take_weight(made, f"messages[{index}]")
        except UnclearMark as error:
            raise NotConvertible(str(error)) from None
        take_thought(made)
        _take_tagged_calls(made, index)
        _complete(made, index)
    elif role == "tool" and isinstance(made.get("content"), str) and (text := _RESPONSE.fullmatch(made["content"])):
        made["content"] = text[1]
    known = KEYS_OF_ROLE.get(role) if isinstance(role, str) else None
    for key in [key for key in made if known is not None and key not in known]:
        if role != "assistant" and key in TRAINED and made[key] is False:
            del made[key]  # as no message of another role is trained
            continue
        dropped[f"messages[].{key}"] += 1
        del made[key]
    return made


def _take_tagged_calls(made: Row, index: int) -> None:
    """Calls that stand as <tool_call> in the text of an answer."""
    content = made.get("content")
    if not isinstance(content, str) or "tool_calls" in made or not (found := _CALL.findall(content)):
        return
    made["tool_calls"] = _calls_in(found, index)
    if text := _CALL.sub("", content).strip():
        made["content"] = text
    else:
        del made["content"]


def _calls_in(texts: Sequence[object], index: int) -> list[Row]:
    """The calls that are written as JSON, {name, arguments} or a list of such."""
    calls: list[Row] = []
    for text in texts:
        value = parse(text) if isinstance(text, str) else text
        for function in value if isinstance(value, list) else [value]:
            if isinstance(function, JsonProblem) or not isinstance(function, dict) or "name" not in function:
                raise NotConvertible(f"messages[{index}] calls {quoted(text)}, expected JSON with name and arguments")
            arguments = function.get("arguments", function.get("parameters", {}))
            calls.append({"type": "function", "function": {"name": function["name"], "arguments": arguments}})
    return calls


def _complete(made: Row, index: int) -> None:
    """Weights as whole numbers, arguments as text, an id and a type for every call, no empty list of calls."""
    if isinstance(made.get("weight"), bool | float) and made["weight"] in (0, 1):
        made["weight"] = int(made["weight"])
    if made.get("tool_calls") == []:
        del made["tool_calls"]
    if isinstance(calls := made.get("tool_calls"), list):
        made["tool_calls"] = [_call(call, f"call_{index}_{i}") for i, call in enumerate(calls)]
    if isinstance(function := made.get("function_call"), dict):
        made["function_call"] = _called(function)


def _call(call: Any, call_id: str) -> Any:
    if not isinstance(call, dict):
        return call
    kept = {key: value for key, value in call.items() if value is not None}
    if isinstance(function := kept.get("function"), dict):
        kept["function"] = _called(function)
    return {"id": call_id, "type": "function"} | kept


def _called(function: Mapping[str, Any]) -> Row:
    kept = {key: value for key, value in function.items() if value is not None}
    if isinstance(kept.get("arguments"), dict):
        kept["arguments"] = json.dumps(kept["arguments"], ensure_ascii=False)
    return kept


def chat_tools(tools: object) -> list[Any] | None:
    """Tools as the chat format lists them, from such a list or its JSON, each wrapped or not; None where empty."""
    value = (tools.strip() and parse(tools)) if isinstance(tools, str) else tools
    if not value:
        return None
    if isinstance(value, JsonProblem) or not isinstance(value, list):
        raise NotConvertible(f"tools is {quoted(tools)}, expected a list of functions, or its JSON")
    return [_tool(_without_nulls(tool)) for tool in value]


def _tool(tool: Any) -> Any:
    if not isinstance(tool, dict) or "function" in tool or "name" not in tool:
        return tool
    if "input_schema" in tool and "parameters" not in tool:  # Anthropic's
        schema = {"parameters": tool["input_schema"]}
        tool = {key: tool[key] for key in ("name", "description") if key in tool} | schema
    return {"type": "function", "function": {key: value for key, value in tool.items() if (key, value) != _TYPE}}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if item is not None or key in _KEYS_OF_NULL}
    return {key: item if key == "enum" else _without_nulls(item) for key, item in kept.items()}
