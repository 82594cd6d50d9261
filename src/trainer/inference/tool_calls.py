"""Tool calls in a model's own text, in the form in which its chat template writes them (`call_forms.py`).

Nothing else counts as a call: that form is what was trained, and what the prompt shows the model.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

TEXT_TYPES = {"string", None}

_FUNCTION = re.compile(r"[\w.-]{1,64}")


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
        return json.dumps([self.name, whole_numbers(self.arguments)], sort_keys=True)


class Unit(Protocol):
    """Form of one call between the brackets of all; a dataclass."""

    def read(self, text: str, position: int) -> tuple[list[Call], int] | None:
        """The calls that begin at `position`, and where they end; None where none does."""
        ...


@dataclass(frozen=True, slots=True)
class JsonUnit:
    """A JSON object that holds name and arguments, or a list of such objects."""

    name: tuple[str, ...]  # keys from the object to the name
    arguments: tuple[str, ...]

    def read(self, text: str, position: int) -> tuple[list[Call], int] | None:
        value, end = json_at(text, position)
        found = [_call(_at(item, self.name), _at(item, self.arguments)) for item in as_list(value)]
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
        value, end = json_at(text, head.end())
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
        call = _call(found[1], {key.strip(): value.strip() for key, value in pairs})
        return None if call is None else ([call], found.end())


UNITS: tuple[type[JsonUnit | NamedUnit | FieldsUnit], ...] = (JsonUnit, NamedUnit, FieldsUnit)


@dataclass(frozen=True, slots=True)
class Brackets:
    """Text around the units: `opening unit tail`, for each further call `following unit tail`, `closing`."""

    opening: str
    tail: str
    following: str | None  # None where the template writes one call, or all of them in one unit
    closing: str


@dataclass(frozen=True, slots=True)
class CallForm:
    """Form in which one chat template writes calls."""

    brackets: Brackets
    unit: Unit

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The form that `as_json` gave."""
        kind = next(kind for kind in UNITS if kind.__name__ == value["kind"])
        unit: dict[str, Any] = {
            name: tuple(found) if isinstance(found, list) else found for name, found in value["unit"].items()
        }
        return cls(Brackets(**value["brackets"]), kind(**unit))

    def as_json(self) -> dict[str, Any]:
        """For another process."""
        return {"kind": type(self.unit).__name__} | asdict(self)

    @property
    def opening(self) -> str:
        """Beginning of calls; empty where they are the whole answer, and begin as JSON does."""
        return self.brackets.opening.strip()

    def read(self, text: str) -> tuple[str, list[Call]]:
        """The text before the calls, and the calls. Without calls, or with broken ones, all of it is text."""
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


def before_call(text: str, opening: str) -> int:
    """Number of characters of `text` before anything that is, or may become, the opening of a call."""
    if not opening:
        return 0 if text.lstrip()[:1] in ("", "{", "[") else len(text)
    if (at := text.find(opening)) >= 0:
        return at
    return len(text) - overlap(text, opening)


def overlap(text: str, end: str) -> int:
    """The length of the longest ending of `text` with which `end` begins."""
    lengths = range(min(len(text), len(end) - 1), 0, -1)
    return next((length for length in lengths if end.startswith(text[-length:])), 0)


def as_call(function: Mapping[str, Any]) -> Call:
    """A call; one whose arguments are no JSON object keeps them as text, under no name: so a wrong one stays wrong."""
    text = str(function.get("arguments") or "{}")
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        arguments = None
    return Call(str(function.get("name") or ""), arguments if isinstance(arguments, dict) else {"": text})


def typed(call: Call, tools: Sequence[Mapping[str, Any]]) -> Call:
    """The call with the types that its tool declares, where the template's form writes every argument as text."""
    for tool in tools:
        if tool["function"]["name"] == call.name:
            declared = _declared(tool["function"].get("parameters"))
            return Call(call.name, {key: _value(value, declared.get(key)) for key, value in call.arguments.items()})
    return call


def _declared(schema: Any) -> dict[str, str]:
    """The type of each property that has a plain one; a schema may be true, or leave anything out."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return {}
    types = {key: value.get("type") for key, value in properties.items() if isinstance(value, dict)}
    return {key: kind for key, kind in types.items() if isinstance(kind, str)}


def _loose(literal: str) -> str:
    """A pattern for `literal`, however much white space stands where it has some, and at its ends."""
    return r"\s*" + r"\s*".join(map(re.escape, literal.split())) + (r"\s*" if literal.split() else "")


def json_at(text: str, position: int) -> tuple[Any, int]:
    """The JSON value that begins at `position`, and its end; None where there is none."""
    begin = position + len(text[position:]) - len(text[position:].lstrip())
    try:
        return _DECODER.raw_decode(text, begin)
    except (ValueError, RecursionError):
        return None, position


def as_list(value: Any) -> list[Any]:
    """One value or several, as a list."""
    return value if isinstance(value, list) else [value]


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _call(name: Any, arguments: Any) -> Call | None:
    found = as_object(arguments)
    named = isinstance(name, str) and _FUNCTION.fullmatch(name)
    return Call(name, found) if named and isinstance(found, dict) else None


def as_object(value: Any) -> Any:
    """Arguments may be written as an object, or as a string that holds one."""
    if not isinstance(value, str):
        return value
    try:
        return _DECODER.decode(value)
    except (ValueError, RecursionError):
        return None


def _value(value: Any, declared: Any) -> Any:
    if not isinstance(value, str) or isinstance(declared, list) or declared in TEXT_TYPES:
        return value
    try:
        return _DECODER.decode(value)
    except (ValueError, RecursionError):
        return value


def _finite(number: str) -> float:
    """JSON has no number that is not finite, and an answer must not hold one."""
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is not finite")
    return value


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


def whole_numbers(value: Any) -> Any:
    """A JSON value in which 1.0 is 1, which JSON does not tell apart."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: whole_numbers(inner) for key, inner in value.items()}
        case list():
            return [whole_numbers(inner) for inner in value]
    return value
