"""The form in which a chat template writes tool calls, read off renderings of probe calls.

There is no list of models: a form counts only if it reads the probes back.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any

from trainer.data.render.chat_template import ChatTemplate, RenderingError
from trainer.inference.thought_markers import THOUGHT, thought_markers
from trainer.inference.tool_calls import (
    Brackets,
    Call,
    CallForm,
    FieldsUnit,
    JsonUnit,
    NamedUnit,
    as_list,
    as_object,
    json_at,
)

NAME = "probe_function"
ARGUMENTS = {"first_key": "first text", "second_key": "second text"}


def call_form(template: ChatTemplate) -> CallForm | None:
    """Find out by probes how `template` writes calls; None where it does not, or no reader can undo it."""
    try:
        bare, one = (_rendered(template, 1, arguments) for arguments in ({}, ARGUMENTS))
    except RenderingError:
        return None
    try:
        two: str | None = _rendered(template, 2, ARGUMENTS)
    except RenderingError:  # Llama 3.1 refuses a second call
        two = None
    if two == one:  # gpt-oss writes only the first call
        two = None
    form = _json_form(one, two) or _fields_form(bare, one, two)
    probes = [(one, 1), (two, 2)]
    if form is None or any(text and form.read(text) != ("", [Call(NAME, ARGUMENTS)] * n) for text, n in probes):
        return None
    return form


def _rendered(template: ChatTemplate, count: int, arguments: Mapping[str, str]) -> str:
    """Text of `count` probe calls as a model generates it, without a thought and the token that ends it."""
    function = {"name": NAME, "arguments": json.dumps(arguments)}
    calls = [{"id": f"probe000{number}", "type": "function", "function": function} for number in range(count)]
    answer = template.adapt({"role": "assistant", "content": "", "tool_calls": calls})
    tool = {"name": NAME, "description": "A probe.", "parameters": {"type": "object", "properties": {}}}
    question = {"role": "user", "content": "probe question"}
    tools = [{"type": "function", "function": tool}]
    form, prompt = thought_markers(template), template.text([question], tools, prompt=True)
    try:
        text = generated_text(template, [question, answer], tools)
    except RenderingError:  # Nemotron's prompt opens a thought, which its template leaves out where there is none
        thinking = template.adapt(answer | {"reasoning_content": THOUGHT})
        text = generated_text(template, [question, thinking], tools)
    return form.split(text, form.opened_by(prompt))[1]


def generated_text(template: ChatTemplate, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
    """Text that ends in the last of `messages`, without prompt and end token. Raises: RenderingError."""
    prompt, row = template.text(messages[:-1], tools, prompt=True), template.text(messages, tools)
    if not row.startswith(prompt):
        raise RenderingError("the chat template rewrites what stands before the answer")
    marker = str(template.tokenizer.convert_ids_to_tokens(template.end_marker(messages[-1])))
    return row[len(prompt) :].partition(marker)[0]


def _json_form(one: str, two: str | None) -> CallForm | None:
    """Calls whose arguments are JSON, with the name in the same value or before it."""
    for begin in (match.start() for match in re.finditer(r"[{\[]", one)):
        value, end = json_at(one, begin)
        if value is None or ARGUMENTS["second_key"] not in one[begin:end]:
            continue
        item = as_list(value)[0]
        name, arguments = (
            _path(item, lambda inner: inner == NAME),
            _path(item, lambda inner: as_object(inner) == ARGUMENTS),
        )
        at = one.find(NAME)
        if name is not None and arguments is not None:
            brackets = _brackets(one, None if isinstance(value, list) else two, begin, end)
            return CallForm(brackets, JsonUnit(name, arguments))
        if 0 <= at < begin and arguments == ():
            return CallForm(_brackets(one, two, at, end), NamedUnit(one[at + len(NAME) : begin]))
        return None
    return None


def _fields_form(bare: str, one: str, two: str | None) -> CallForm | None:
    """Calls whose name and arguments stand between tags."""
    words = (NAME, *(word for pair in ARGUMENTS.items() for word in pair))
    found = re.search("(.*?)".join(map(re.escape, words)), one, re.DOTALL)
    if found is None or found[2] != found[4] or not all(tag.strip() for tag in found.groups()):
        return None
    brackets = _brackets(one, two, found.start(), found.end())
    after_name = bare.partition(NAME)[2].removesuffix(brackets.closing)
    unit = FieldsUnit(found[1], found[2], found[3], brackets.tail, after_name)
    return CallForm(replace(brackets, tail=""), unit)


def _brackets(one: str, two: str | None, begin: int, end: int) -> Brackets:
    """Text around the unit that is at `begin` to `end` of the probe with one call."""
    rest = one[end:]
    second = two.rfind(one[begin:end]) if two is not None else -1
    if two is None or second <= begin:
        return Brackets(one[:begin], rest, None, "")
    between = two[end:second]
    same = takewhile(lambda pair: pair[0] == pair[1], zip(rest, between, strict=False))
    tail = "".join(char for char, _ in same)
    return Brackets(one[:begin], tail, between[len(tail) :], rest[len(tail) :])


def _path(value: Any, wanted: Callable[[Any], bool]) -> tuple[str, ...] | None:
    """The keys of nested objects that lead to what is wanted."""
    if wanted(value):
        return ()
    for name, inner in value.items() if isinstance(value, dict) else ():
        if (rest := _path(inner, wanted)) is not None:
            return (name, *rest)
    return None
