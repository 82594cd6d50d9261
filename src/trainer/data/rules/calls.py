"""The rules of calls and of the messages that answer them."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from trainer.data.json_scanner import JsonProblem
from trainer.data.quoting import listed, quoted
from trainer.data.rules.findings import FindingList
from trainer.data.rules.keys import check_keys
from trainer.data.rules.messages import calls_something
from trainer.data.rules.tools import ToolList
from trainer.data.strict_json import parse

_CALL_KEYS = frozenset({"id", "type", "function"})
_CALLED_KEYS = frozenset({"name", "arguments"})


def check_calls(messages: list[Any], tool_list: ToolList, findings: FindingList) -> bool:
    """True if every call is well-formed enough to look for its answer."""
    called: list[tuple[str, Any]] = []
    num_before = findings.num_added
    for index, message in enumerate(messages):
        if type(message) is dict and message.get("role") == "assistant" and len(message) > 1:
            called += _read_calls(message, f"messages[{index}]", findings)
    sound = findings.num_added == num_before
    for where, function in called:
        _check_arguments(function, where, findings)
    if called and tool_list.names is not None:
        _check_names(called, tool_list.names, findings)
    return sound


def _read_calls(message: Mapping[str, Any], where: str, findings: FindingList) -> list[tuple[str, Any]]:
    """The well-formed {name, arguments} of a message's calls, each with its place."""
    if "tool_calls" not in message:
        return _read_function_call(message, where, findings)
    calls = message["tool_calls"]
    if message.get("function_call") is not None:
        findings.add("TOOL_CALLS", where, "has both tool_calls and function_call", "one of the two")
    if type(calls) is not list or not calls:
        found = "is an empty list" if calls == [] else f"is {quoted(calls)}"
        findings.add("TOOL_CALLS", f"{where}.tool_calls", found, "a non-empty list of calls", "write it or remove it")
        return []
    places = [f"{where}.tool_calls[{i}]" for i in range(len(calls))]
    sound = [_check_call(call, place, findings) for call, place in zip(calls, places, strict=True)]
    ids = [call["id"] for call, is_sound in zip(calls, sound, strict=True) if is_sound]
    repeated = [(call_id, count) for call_id, count in Counter(ids).items() if count > 1]
    for call_id, count in repeated:
        found = f"hold the id {quoted(call_id)} {count} times"
        findings.add("TOOL_CALLS", f"{where}.tool_calls", found, "an id of its own for each call", "rename one")
    functions = [(place, call.get("function")) for place, call in zip(places, calls, strict=True) if type(call) is dict]
    return [(f"{place}.function", f) for place, f in functions if type(f) is dict and type(f.get("name")) is str]


def _read_function_call(message: Mapping[str, Any], where: str, findings: FindingList) -> list[tuple[str, Any]]:
    function = message.get("function_call")
    if function is None or not _check_called(function, f"{where}.function_call", findings):
        return []
    return [(f"{where}.function_call", function)]


def _check_call(call: Any, where: str, findings: FindingList) -> bool:
    if type(call) is not dict:
        findings.add("TOOL_CALLS", where, f"is {quoted(call)}", "an object {id, type, function}")
        return False
    keys_known = check_keys(call, _CALL_KEYS, where, findings)
    has_id = type(call.get("id")) is str and bool(call["id"])
    if not has_id and (keys_known or "id" in call):
        found = f"is {quoted(call['id'])}" if "id" in call else "is absent"
        findings.add("TOOL_CALLS", f"{where}.id", found, "a non-empty string")
    if call.get("type") != "function" and (keys_known or "type" in call):
        found = f"is {quoted(call['type'])}" if "type" in call else "is absent"
        findings.add("TOOL_CALLS", f"{where}.type", found, "'function'")
    if "function" in call or keys_known:
        _check_called(call.get("function"), f"{where}.function", findings)
    return has_id


def _check_called(function: Any, where: str, findings: FindingList) -> bool:
    if type(function) is not dict:
        found = "is absent" if function is None else f"is {quoted(function)}"
        findings.add("TOOL_CALLS", where, found, "an object {name, arguments}")
        return False
    keys_known = check_keys(function, _CALLED_KEYS, where, findings)
    if type(function.get("name")) is str and function["name"]:
        return True
    if keys_known or "name" in function:
        found = f"is {quoted(function['name'])}" if "name" in function else "is absent"
        findings.add("TOOL_CALLS", f"{where}.name", found, "the name of a tool")
    return False


def _check_arguments(function: Mapping[str, Any], where: str, findings: FindingList) -> None:
    arguments = function.get("arguments")
    where = f"{where}.arguments"
    accepted = "a string that holds a JSON object"
    if type(arguments) is not str:
        found = f"is {quoted(arguments)}" if "arguments" in function else "is absent"
        if "arguments" in function or function.keys() <= _CALLED_KEYS:
            findings.add("ARGUMENTS", where, found, accepted)
        return
    value = parse(arguments)
    if isinstance(value, JsonProblem):
        findings.add("ARGUMENTS", where, f"{value.found} (character {value.column})", accepted)
    elif type(value) is not dict:
        findings.add("ARGUMENTS", where, f"holds {quoted(value)}", accepted)


def _check_names(called: list[tuple[str, Any]], names: frozenset[str], findings: FindingList) -> None:
    if not names:
        where, function = called[0]
        found = f"is {quoted(function['name'])} in a row without tools"
        findings.add("CALL_NAME", f"{where}.name", found, "a function of tools", "add tools to the row")
        return
    for where, function in called:
        if function["name"] not in names:
            known = sorted(names)
            accepted = listed([quoted(name) for name in known[:5]] + (["another tool"] if known[5:] else []), "or")
            findings.add("CALL_NAME", f"{where}.name", f"is {quoted(function['name'])}", accepted)


def check_answers(messages: list[dict[str, Any]], findings: FindingList) -> None:
    """Match tool and function messages with the calls before them; all roles are known and all calls well-formed."""
    waiting: dict[tuple[str, str], int] = {}  # (key, id or name) of a call -> index of its message
    answered: set[tuple[str, str]] = set()
    for index, message in enumerate(messages):
        role = message["role"]
        if role in ("tool", "function"):
            _take_answer(message, index, waiting, answered, findings)
        elif waiting and role in ("user", "assistant"):
            _note_unanswered(waiting, index, findings)
            waiting.clear()
        if role == "assistant" and calls_something(message):
            waiting.update(dict.fromkeys(_calls_of(message), index))


def _calls_of(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    if message.get("function_call") is not None:
        return [("name", message["function_call"]["name"])]
    return [("tool_call_id", call["id"]) for call in message.get("tool_calls", ())]


def _take_answer(
    message: Mapping[str, Any],
    index: int,
    waiting: dict[tuple[str, str], int],
    answered: set[tuple[str, str]],
    findings: FindingList,
) -> None:
    key = "tool_call_id" if message["role"] == "tool" else "name"
    where, value = f"messages[{index}].{key}", message.get(key)
    if type(value) is str and (key, value) in waiting:
        answered.add((key, value))
        del waiting[key, value]
        return
    found = f"is {quoted(value)}" if key in message else "is absent"
    if type(value) is str and (key, value) in answered:
        findings.add("TOOL_ANSWER", where, f"{found}, which is answered already", "one answer to a call")
        return
    expected = [quoted(name) for kind, name in waiting if kind == key]
    accepted = listed(expected[:5], "or") if expected else "a call before it that waits for an answer"
    findings.add("TOOL_ANSWER", where, found, accepted)
    # The call that was meant counts as answered, so that one slip is not reported twice.
    waiting.pop(next(iter(waiting), ("", "")), None)


def _note_unanswered(waiting: Mapping[tuple[str, str], int], index: int, findings: FindingList) -> None:
    for (_, name), caller in waiting.items():
        found = f"calls {quoted(name)}, which has no answer before messages[{index}]"
        findings.add("UNANSWERED_CALL", f"messages[{caller}]", found, "one tool message for each call")
