"""Tool calls in a model's own text, in the form in which its chat template writes them.

The form is read off renderings of probe calls, never from a list of models, and used only when it reads the probes
back. Nothing else counts as a call: that form is what was trained, and what the prompt shows the model.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Protocol

from trainer.data.chat_template import ChatTemplate, RenderingError

NAME = "probe_function"
ARGUMENTS = {"first_key": "first text", "second_key": "second text"}

_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Call:
    """A call as a model wrote it. Where the form holds no JSON, every argument is text."""

    name: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        """As a person reads it."""
        arguments = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in self.arguments.items())
        return f"{self.name}({', '.join(arguments)})"

    @property
    def canonical(self) -> str:
        """Equal for calls that differ in white space, the order of keys, or 1 and 1.0 only."""
        return json.dumps([self.name, _whole_numbers(self.arguments)], sort_keys=True)


class Unit(Protocol):
    """How one call is written between the brackets of all."""

    def read(self, text: str, position: int) -> tuple[list[Call], int] | None:
        """The calls that begin at `position`, and where they end; None where none does."""
        ...


@dataclass(frozen=True, slots=True)
class JsonUnit:
    """A JSON object that holds name and arguments, or a list of such objects."""

    name: tuple[str, ...]  # keys from the object to the name
    arguments: tuple[str, ...]

    def read(self, text: str, position: int) -> tuple[list[Call], int] | None:
        value, end = _json_at(text, position)
        found = [_call(_at(item, self.name), _at(item, self.arguments)) for item in _as_list(value)]
        calls = [call for call in found if call is not None]
        return (calls, end) if calls and len(calls) == len(found) else None


@dataclass(frozen=True, slots=True)
class NamedUnit:
    """A bare name, then the arguments as JSON."""

    between: str

    def read(self, text: str, position: int) -> tuple[list[Call], int] | None:
        head = re.compile(rf"\s*(\S+?)\s*{_loose(self.between)}").match(text, position)
        if head is None:
            return None
        value, end = _json_at(text, head.end())
        call = _call(head[1], value)
        return None if call is None else ([call], end)


@dataclass(frozen=True, slots=True)
class FieldsUnit:
    """A bare name, then every argument between tags: `head key middle value joint key middle value tail`."""

    head: str
    middle: str
    joint: str
    tail: str
    bare: str  # what follows the name of a call without arguments

    def read(self, text: str, position: int) -> tuple[list[Call], int] | None:
        pattern = rf"\s*(\S+?)(?:{_loose(self.head)}(.*?){_loose(self.tail)}|{_loose(self.bare)})"
        found = re.compile(pattern, re.DOTALL).match(text, position)
        if found is None:
            return None
        fields = re.split(_loose(self.joint), found[2]) if found[2] is not None else []
        pairs = [re.split(_loose(self.middle), field, maxsplit=1) for field in fields]
        if any(len(pair) != 2 for pair in pairs):
            return None
        return [Call(found[1], {key.strip(): value.strip() for key, value in pairs})], found.end()


@dataclass(frozen=True, slots=True)
class Brackets:
    """What stands around the units: `opening unit tail`, for each further call `following unit tail`, `closing`."""

    opening: str
    tail: str
    following: str | None  # None where the template writes one call, or all of them in one unit
    closing: str


@dataclass(frozen=True, slots=True)
class CallForm:
    """How one chat template writes calls."""

    brackets: Brackets
    unit: Unit

    def read(self, text: str) -> tuple[str, list[Call]]:
        """The text before the calls, and the calls. Without calls, or with broken ones, all of it is text."""
        text = without_thinking(text)
        opening = self.brackets.opening
        start = re.search(_loose(opening), text) if opening.strip() else re.match("", text)
        if start is None:
            return text, []
        calls, position = self._read_calls(text, start.end())
        end = re.compile(_loose(self.brackets.closing)).match(text, position)
        if not calls or end is None or text[end.end() :].strip():
            return text, []
        return text[: start.start()].strip(), calls

    def _read_calls(self, text: str, position: int) -> tuple[list[Call], int]:
        """All calls from `position` on, and the end of the last; none when one is broken."""
        calls: list[Call] = []
        while True:
            found = self.unit.read(text, position)
            end = re.compile(_loose(self.brackets.tail)).match(text, found[1]) if found else None
            if found is None or end is None:  # where nothing stands between two calls, nothing says that one must come
                return (calls if self.brackets.following == "" else []), position
            calls, position = calls + found[0], end.end()
            if self.brackets.following is None:
                return calls, position
            following = re.compile(_loose(self.brackets.following)).match(text, position)
            if following is None:
                return calls, position
            position = following.end()


def call_form(template: ChatTemplate) -> CallForm | None:
    """How `template` writes calls, or None where it does not, or in a way that cannot be read back."""
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


def without_thinking(text: str) -> str:
    """What follows the thinking of a reasoning model."""
    return text.rpartition("</think>")[2]


def _rendered(template: ChatTemplate, count: int, arguments: Mapping[str, str]) -> str:
    """What the model generates to make `count` probe calls, without its thinking and the token that ends it."""
    function = {"name": NAME, "arguments": json.dumps(arguments)}
    calls = [{"id": f"probe000{number}", "type": "function", "function": function} for number in range(count)]
    answer = template.adapt({"role": "assistant", "content": "", "tool_calls": calls})
    tool = {"name": NAME, "description": "A probe.", "parameters": {"type": "object", "properties": {}}}
    question = {"role": "user", "content": "probe question"}
    return without_thinking(generated_text(template, [question, answer], [{"type": "function", "function": tool}]))


def generated_text(template: ChatTemplate, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
    """What the model generates for the last of `messages`, without the token that ends it. Raises: RenderingError."""
    prompt, row = template.text(messages[:-1], tools, prompt=True), template.text(messages, tools)
    if not row.startswith(prompt):
        raise RenderingError("the chat template rewrites what stands before the answer")
    marker = str(template.tokenizer.convert_ids_to_tokens(template.end_marker(messages[-1])))
    return row[len(prompt) :].partition(marker)[0]


def _json_form(one: str, two: str | None) -> CallForm | None:
    """Calls whose arguments are JSON, with the name in the same value or before it."""
    for begin in (match.start() for match in re.finditer(r"[{\[]", one)):
        value, end = _json_at(one, begin)
        if value is None or ARGUMENTS["second_key"] not in one[begin:end]:
            continue
        item = _as_list(value)[0]
        name, arguments = (
            _path(item, lambda inner: inner == NAME),
            _path(item, lambda inner: _object(inner) == ARGUMENTS),
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
    """What stands around the unit that is at `begin` to `end` of the probe with one call."""
    rest = one[end:]
    second = two.rfind(one[begin:end]) if two is not None else -1
    if two is None or second <= begin:
        return Brackets(one[:begin], rest, None, "")
    between = two[end:second]
    same = takewhile(lambda pair: pair[0] == pair[1], zip(rest, between, strict=False))
    tail = "".join(char for char, _ in same)
    return Brackets(one[:begin], tail, between[len(tail) :], rest[len(tail) :])


def _loose(literal: str) -> str:
    """A pattern for `literal`, however much white space stands where it has some, and at its ends."""
    return r"\s*" + r"\s*".join(map(re.escape, literal.split())) + (r"\s*" if literal.split() else "")


def _json_at(text: str, position: int) -> tuple[Any, int]:
    """The JSON value that begins at `position`, and its end; None where there is none."""
    begin = position + len(text[position:]) - len(text[position:].lstrip())
    try:
        return _DECODER.raw_decode(text, begin)
    except (ValueError, RecursionError):
        return None, position


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _path(value: Any, wanted: Callable[[Any], bool]) -> tuple[str, ...] | None:
    """The keys of nested objects that lead to what is wanted."""
    if wanted(value):
        return ()
    for name, inner in value.items() if isinstance(value, dict) else ():
        if (rest := _path(inner, wanted)) is not None:
            return (name, *rest)
    return None


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _call(name: Any, arguments: Any) -> Call | None:
    found = _object(arguments)
    return Call(name, found) if isinstance(name, str) and isinstance(found, dict) else None


def _object(value: Any) -> Any:
    """Arguments may be written as an object, or as a string that holds one."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _whole_numbers(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: _whole_numbers(inner) for key, inner in value.items()}
        case list():
            return [_whole_numbers(inner) for inner in value]
    return value
