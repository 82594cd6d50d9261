"""The rules of a preference row: a prompt, and two answers to it of which one is preferred.

Prompt and answer are a conversation each time, to which the rules of chat rows apply. The format and its own rules:
learn.microsoft.com, "Direct preference optimization" (2026-02-11), and the same page of developers.openai.com.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from trainer.data.conversations import in_pair
from trainer.data.quoting import quoted
from trainer.data.rules.findings import Finding, FindingList
from trainer.data.rules.keys import check_keys
from trainer.data.rules.messages import KEYS_OF_ROLE
from trainer.data.rules.row import PREFERENCE_KEYS, check_row
from trainer.data.rules.thoughts import refuse_thought
from trainer.data.rules.tools import ToolList, ToolLists

OUTPUTS = ("preferred_output", "non_preferred_output")
INPUT_KEYS = frozenset({"messages", "tools", "parallel_tool_calls"})
ROLES_OF_ANSWERS = ("assistant", "tool")
# On the end of a conversation: an answer in another role, and none at all, have findings of their own.
_OF_THE_END = ("LAST_MESSAGE", "SYSTEM_POSITION", "NOTHING_TRAINED")


def check_preference(row: Mapping[str, Any], tool_lists: ToolLists, findings: FindingList) -> ToolList:
    """Note every mistake of `row`; what comes back are its tools, checked."""
    check_keys(row, PREFERENCE_KEYS, "the row", findings, ("input", *OUTPUTS))
    source, prompt = _prompt(row, findings)
    answers = {name: _answer(row, name, findings) for name in OUTPUTS}
    if all(answers.values()) and answers[OUTPUTS[0]] == answers[OUTPUTS[1]]:
        findings.add("PAIR_EQUAL", OUTPUTS[1], f"is the same as {OUTPUTS[0]}", "another answer")
    reported: set[tuple[str, str, str]] = set()
    tool_list = ToolList()
    for name, answer in answers.items():
        scratch = FindingList(findings.file, "local")  # of the local backend: no preference training reads images
        joined = {**source, "messages": [*prompt, *map(_unweighted, answer)]}
        tool_list = check_row(joined, tool_lists, scratch)
        is_other = not answer or any(_is_other(message) for message in answer)
        for finding in _placed(scratch, len(prompt), name):
            if (key := (finding.code, finding.where, finding.found)) in reported:
                continue
            reported.add(key)
            if not (finding.code in _OF_THE_END and is_other) and (prompt or answer):
                _add(finding, findings)
    for place, messages in (("input.messages", prompt), *answers.items()):
        for index, message in enumerate(messages):
            refuse_thought(message, f"{place}[{index}]", findings)
    return tool_list


def _prompt(row: Mapping[str, Any], findings: FindingList) -> tuple[dict[str, Any], list[Any]]:
    """The input without its messages, and its messages; what cannot be read is noted and empty."""
    source = row.get("input")
    if type(source) is not dict:
        found = f"is {quoted(source)}" if "input" in row else "is absent"
        findings.add("PAIR", "input", found, "an object {messages, tools}", 'write {"messages": [...]}')
        return {}, []
    check_keys(source, INPUT_KEYS, "input", findings, ("messages", "tools", "parallel_tool_calls"))
    others = {key: value for key, value in source.items() if key in INPUT_KEYS and key != "messages"}
    return others, _messages(source, "messages", "input.messages", findings)


def _answer(row: Mapping[str, Any], name: str, findings: FindingList) -> list[Any]:
    """The messages of an answer; what cannot be read is noted and empty."""
    answer = _messages(row, name, name, findings)
    for index, message in enumerate(answer):
        if _is_other(message):
            found = f"is {quoted(message['role'])}"
            findings.add("PAIR_ROLE", f"{name}[{index}].role", found, "assistant or tool")
        elif type(message) is dict and "weight" in message:
            accepted = "none, as the row says which answer is preferred"
            findings.add("PAIR_WEIGHT", f"{name}[{index}]", "has weight", accepted)
    if len(answer) > 1:
        found = f"holds {len(answer)} messages"
        findings.add("PAIR_TURNS", name, found, "one, which is all that api.openai.com takes")
    return answer


def _messages(owner: Mapping[str, Any], key: str, where: str, findings: FindingList) -> list[Any]:
    value = owner.get(key)
    if type(value) is list and value:
        return value
    found = "is absent" if key not in owner else "is an empty list" if value == [] else f"is {quoted(value)}"
    fix = 'write [{"role": "user", "content": "..."}]' if key == "messages" else None  # a prompt's
    findings.add("PAIR", where, found, "a non-empty list of messages", fix)
    return []


def _is_other(message: Any) -> bool:
    """True for a role that the chat format knows and an answer cannot have."""
    role = message.get("role") if type(message) is dict else None
    return type(role) is str and role in KEYS_OF_ROLE and role not in ROLES_OF_ANSWERS


def _unweighted(message: Any) -> Any:
    if type(message) is not dict:
        return message
    return {key: value for key, value in message.items() if key != "weight"}


def _placed(scratch: FindingList, num_prompt: int, name: str) -> Iterator[Finding]:
    """The findings of a prompt with an answer, each with its place in the row."""
    for finding in scratch.findings:
        where = in_pair(finding.where, num_prompt, name)
        if where.startswith(("tools", "parallel_tool_calls")):
            where = f"input.{where}"
        found = finding.found
        if found.startswith("follows messages["):
            found = in_pair(found, num_prompt, name)
        yield replace(finding, where=where, found=found)


def _add(finding: Finding, findings: FindingList) -> None:
    is_image = finding.code == "IMAGE"
    code = "PAIR_IMAGE" if is_image else finding.code
    findings.add(code, finding.where, finding.found, finding.accepted, None if is_image else finding.fix)
