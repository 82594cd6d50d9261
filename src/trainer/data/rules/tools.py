"""The rules of the tools that a row offers to the model."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.data.quoting import quoted
from trainer.data.rules.findings import Finding, FindingList
from trainer.data.rules.keys import check_keys
from trainer.data.rules.schemas import check_schema

MAX_KNOWN_LISTS = 1024
MAX_KNOWN_CHARS = 64 * 1024  # of one list; a file of long ones, each another, must not fill the memory
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TOOL_KEYS = frozenset({"type", "function"})
_FUNCTION_KEYS = frozenset({"name", "description", "parameters", "strict"})


@dataclass(frozen=True, slots=True)
class ToolList:
    """The tools of a row in today's form; `names` is None where a tool's name could not be read."""

    tools: tuple[Mapping[str, Any], ...] = ()
    names: frozenset[str] | None = frozenset()
    findings: tuple[Finding, ...] = ()


_NO_TOOLS = ToolList()


class ToolLists:
    """Checks each different list of tools once: most files repeat one list in every row."""

    def __init__(self) -> None:
        self._known: dict[str, ToolList] = {}

    def read(self, row: Mapping[str, Any], findings: FindingList) -> ToolList:
        """The tools of `row`; their mistakes are noted for every row that has them."""
        if "tools" not in row and "functions" not in row:
            return _NO_TOOLS
        key = json.dumps([row.get("tools"), row.get("functions")]) + str("tools" in row) + str("functions" in row)
        tool_list = self._known.get(key) or _read_tools(row, FindingList(findings.file, findings.backend))
        if len(key) <= MAX_KNOWN_CHARS:
            if len(self._known) == MAX_KNOWN_LISTS and key not in self._known:
                self._known.clear()
            self._known[key] = tool_list
        for known in tool_list.findings:
            findings.add(known.code, known.where, known.found, known.accepted, known.fix)
        return tool_list


def _read_tools(row: Mapping[str, Any], findings: FindingList) -> ToolList:
    names: list[str | None] = []
    if "tools" in row and "functions" in row:
        findings.add("TOOLS", "the row", "has both tools and functions", "one of the two", "remove functions")
    if "functions" in row:
        functions = _items(row, "functions", findings)
        names = [_check_function(function, where, findings) for where, function in functions]
        tools = tuple({"type": "function", "function": function} for _, function in functions)
    if "tools" in row:
        entries = _items(row, "tools", findings)
        names = [_check_tool(tool, where, findings) for where, tool in entries]
        tools = tuple(tool for _, tool in entries)
    _check_unique([name for name in names if name is not None], findings)
    readable = None not in names and type(row.get("tools", row.get("functions"))) is list
    return ToolList(tools, frozenset(filter(None, names)) if readable else None, tuple(findings.findings))


def _items(row: Mapping[str, Any], key: str, findings: FindingList) -> list[tuple[str, Any]]:
    if type(row[key]) is not list:
        findings.add("TOOLS", key, f"is {quoted(row[key])}", "a list of functions", "write a list or remove it")
        return []
    return [(f"{key}[{index}]", item) for index, item in enumerate(row[key])]


def _check_tool(tool: Any, where: str, findings: FindingList) -> str | None:
    if type(tool) is not dict:
        findings.add("TOOLS", where, f"is {quoted(tool)}", "an object {type: function, function}")
        return None
    if "function" not in tool and "name" in tool:
        findings.add("TOOLS", where, "is a function by itself", "an object {type: function, function}", "wrap it")
        return tool["name"] if type(tool["name"]) is str else None
    sound = check_keys(tool, _TOOL_KEYS, where, findings)
    if tool.get("type") != "function" and (sound or "type" in tool):
        found = f"is {quoted(tool['type'])}" if "type" in tool else "is absent"
        findings.add("TOOLS", f"{where}.type", found, "'function'")
    if "function" not in tool and not sound:
        return None
    return _check_function(tool.get("function"), f"{where}.function", findings)


def _check_function(function: Any, where: str, findings: FindingList) -> str | None:
    if type(function) is not dict:
        found = "is absent" if function is None else f"is {quoted(function)}"
        findings.add("TOOLS", where, found, "an object {name, description, parameters}")
        return None
    sound = check_keys(function, _FUNCTION_KEYS, where, findings)
    for key, kinds, accepted in (("description", (str,), "a string"), ("strict", (bool, type(None)), "true or false")):
        if key in function and type(function[key]) not in kinds:
            findings.add("TOOLS", f"{where}.{key}", f"is {quoted(function[key])}", accepted)
    if "parameters" in function:
        check_schema(function["parameters"], f"{where}.parameters", findings)
    return _check_name(function, where, findings) if sound or "name" in function else None


def _check_name(function: Mapping[str, Any], where: str, findings: FindingList) -> str | None:
    name = function.get("name")
    if type(name) is str and _NAME.fullmatch(name):
        return name
    found = f"is {quoted(name)}" if "name" in function else "is absent"
    findings.add("TOOL_NAME", f"{where}.name", found, "1 to 64 of the characters A-Z a-z 0-9 _ -")
    return name if type(name) is str else None


def _check_unique(names: list[str], findings: FindingList) -> None:
    repeated = [(name, count) for name, count in Counter(names).items() if count > 1]
    for name, count in repeated:
        found = f"hold {count} functions of the name {quoted(name)}"
        findings.add("TOOL_NAME", "tools", found, "a name of its own for each", "rename or remove one")
