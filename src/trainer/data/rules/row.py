"""The rules of one row as a whole, and of the order in which its messages stand."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from trainer.data.quoting import listed, quoted
from trainer.data.rules.calls import check_answers, check_calls
from trainer.data.rules.findings import FindingList
from trainer.data.rules.keys import check_keys, meant_key
from trainer.data.rules.messages import calls_something, check_message
from trainer.data.rules.tools import ToolList, ToolLists
from trainer.kinds import Method, learns_from_pairs

ROW_KEYS = frozenset({"messages", "tools", "parallel_tool_calls", "functions", "metadata"})
PREFERENCE_KEYS = frozenset({"input", "preferred_output", "non_preferred_output"})
MAX_COMPARED_KEYS = 50
_ADVERTISED_KEYS = ("messages", "tools", "parallel_tool_calls")

PAIRS_OF_OTHERS = "the layout of chosen and rejected"

_FOREIGN_LAYOUTS = (
    ("PREFERENCE", "the preference format", PREFERENCE_KEYS, 2),
    ("PREFERENCE", PAIRS_OF_OTHERS, {"chosen", "rejected"}, 2),
    ("FORMAT", "the ShareGPT layout", {"conversations"}, 1),
    ("FORMAT", "the Alpaca layout", {"instruction", "output"}, 2),
    ("FORMAT", "the prompt/completion layout", {"prompt", "completion"}, 2),
)
_NO_LAYOUTS_OF_PAIRS = (
    ({"chosen", "rejected"}, PAIRS_OF_OTHERS, 2),
    ({"messages"}, "the chat format", 1),
    *((keys, name, needed) for code, name, keys, needed in _FOREIGN_LAYOUTS if code == "FORMAT"),
)


def method_of(row: Mapping[str, Any]) -> Method | None:
    """The training that `row` is written for, None where its layout is that of neither."""
    if "messages" in row:
        return "sft"
    return "dpo" if len(PREFERENCE_KEYS & row.keys()) >= 2 else None


def foreign_layout(row: Mapping[str, Any], method: Method | None) -> tuple[str, str] | None:
    """The rule and the name of another layout than that of `method` which `row` is written in."""
    if learns_from_pairs(method):
        others = (name for keys, name, needed in _NO_LAYOUTS_OF_PAIRS if len(keys & row.keys()) >= needed)
        return next((("PAIR_NEEDED", name) for name in others), None)
    if "messages" in row:
        return None
    layouts = ((code, name) for code, name, keys, needed in _FOREIGN_LAYOUTS if len(keys & row.keys()) >= needed)
    return next(layouts, None)


def check_row(row: Mapping[str, Any], tool_lists: ToolLists, findings: FindingList) -> ToolList:
    """Note every mistake of `row`; what comes back are its tools, checked."""
    messages = row.get("messages")
    if not row.keys() <= ROW_KEYS and ("messages" in row or _renamed_messages(row)):
        check_keys(row, ROW_KEYS, "the row", findings, _ADVERTISED_KEYS)
    elif "messages" not in row:
        found = f"has no messages, only {_keys_in_words(row)}" if row else "is an empty object"
        findings.add("MESSAGES", "the row", found, "messages and, where there are any, tools")
    if type(row.get("parallel_tool_calls", True)) is not bool:
        found = f"is {quoted(row['parallel_tool_calls'])}"
        findings.add("PARALLEL_TOOL_CALLS", "parallel_tool_calls", found, "true or false")
    tool_list = tool_lists.read(row, findings)
    if type(messages) is list and messages:
        _check_messages(messages, tool_list, findings)
    elif "messages" in row:
        found = "is an empty list" if messages == [] else f"is {quoted(messages)}"
        findings.add("MESSAGES", "messages", found, "a non-empty list of messages")
    return tool_list


def _renamed_messages(row: Mapping[str, Any]) -> bool:
    return any(meant_key(key, ROW_KEYS) == "messages" for key in islice(row, MAX_COMPARED_KEYS) if key not in ROW_KEYS)


def _keys_in_words(row: Mapping[str, Any]) -> str:
    keys = [quoted(key) for key in row]
    return listed(keys) if len(keys) <= 5 else listed([*keys[:5], "more"])


def _check_messages(messages: list[Any], tool_list: ToolList, findings: FindingList) -> None:
    roles = [check_message(message, index, findings) for index, message in enumerate(messages)]
    calls_sound = check_calls(messages, tool_list, findings)
    known = [role for role in roles if role is not None]
    if len(known) == len(messages):
        _check_turns(messages, known, findings)
        if calls_sound:
            check_answers(messages, findings)


def _check_turns(messages: list[dict[str, Any]], roles: list[str], findings: FindingList) -> None:
    in_run = False  # a run of answers is reported once
    for index in range(1, len(roles)):
        role, previous = roles[index], roles[index - 1]
        follows = role == previous == "assistant" and not calls_something(messages[index - 1])
        if follows and not in_run:
            accepted = "another role between two assistant messages"
            findings.add("ASSISTANT_TWICE", f"messages[{index}]", f"follows messages[{index - 1}]", accepted)
        elif role in ("system", "developer") and index < len(roles) - 1:
            findings.add("SYSTEM_POSITION", f"messages[{index}]", f"is a {role} message", "one at the start only")
        in_run = follows
    if roles[-1] != "assistant":
        found = f"is a {roles[-1]} message and the last one"
        findings.add("LAST_MESSAGE", f"messages[{len(roles) - 1}]", found, "an assistant message at the end")
    weights = [message.get("weight", 1) for message, role in zip(messages, roles, strict=True) if role == "assistant"]
    if weights and all(type(weight) is int and weight == 0 for weight in weights):
        found = "hold only assistant messages of weight 0"
        findings.add("NOTHING_TRAINED", "messages", found, "one of weight 1 or without weight")
