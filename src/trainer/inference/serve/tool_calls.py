"""Tool calls in an answer, in the form that the model's own template writes them.

The form is read off a rendering of two probe calls, never from a list of models. Only forms that hold the arguments as
JSON are understood; an answer in another form stays text.
"""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Self

from trainer.data.chat_template import ChatTemplate, RenderingError

_NAMES, _ARGUMENTS = ("probe_alpha", "probe_beta"), ({"probe": "one"}, {"probe": "two"})
_IDS = ("probe0001", "probe0002")
_USER = {"role": "user", "content": "probe question"}
_NAME = re.compile(r"[\w.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Call:
    """A function's name and its arguments as a JSON string."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class CallForm:
    """`opening` name `middle` arguments (`between` name `middle` arguments)*, and then anything."""

    opening: str
    middle: str
    between: str | None  # None where a template writes one call only

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, template: ChatTemplate) -> Self | None:
        """The form that a template writes, or None where it writes none that can be read."""
        for count in (2, 1):
            try:
                answer = _rendered(template, count)
            except RenderingError:
                continue
            if found := _split(answer, count):
                return cls(*found)
        return None

    def parse(self, text: str) -> list[Call] | None:
        """The calls of an answer that begins with `opening`, or None where it does not hold to the form."""
        calls, at, before = [], 0, re.compile(re.escape(self.opening))
        between = re.compile(_with_any_id(self.between)) if self.between is not None else None
        while found := before.match(text, at):
            name = _NAME.match(text, found.end())
            if name is None or not text.startswith(self.middle, name.end()):
                return None
            arguments, at = _json_at(text, name.end() + len(self.middle))
            if arguments is None:
                return None
            calls.append(Call(name.group(), arguments))
            if between is None:
                break
            before = between
        return calls or None


def _rendered(template: ChatTemplate, count: int) -> str:
    """What a template writes for an answer that is `count` calls."""
    calls, tools = [], []
    for index in range(count):
        function = {"name": _NAMES[index], "arguments": json.dumps(_ARGUMENTS[index])}
        calls.append({"id": _IDS[index], "type": "function", "function": function})
        parameters = {"type": "object", "properties": {"probe": {"type": "string"}}}
        described = {"name": _NAMES[index], "description": "A probe.", "parameters": parameters}
        tools.append({"type": "function", "function": described})
    answer = template.adapt({"role": "assistant", "content": "", "tool_calls": calls})
    prompt = template.text([_USER], tools, prompt=True)
    whole = template.text([_USER, answer], tools)
    return whole.removeprefix(prompt) if whole.startswith(prompt) else ""


def _split(answer: str, count: int) -> tuple[str, str, str | None] | None:
    """The texts around names and arguments."""
    pieces, at = [], 0
    for index in range(count):
        name = answer.find(_NAMES[index], at)
        after = name + len(_NAMES[index])
        starts = (start for start in range(after, len(answer)) if answer[start] == "{")
        found = next((start for start in starts if _is_probe(answer, start, index)), None)
        if name < 0 or found is None:
            return None
        pieces += [answer[at:name], answer[after:found]]
        _, at = _json_at(answer, found)
    opening = pieces[0].rpartition("</think>")[2].lstrip()  # what a reasoning model thinks before it calls is text
    if not opening or (count == 2 and pieces[1] != pieces[3]):
        return None
    return opening, pieces[1], pieces[2] if count == 2 else None


def _is_probe(answer: str, start: int, index: int) -> bool:
    arguments, _ = _json_at(answer, start)
    return arguments is not None and json.loads(arguments) == _ARGUMENTS[index]


def _json_at(text: str, start: int) -> tuple[str | None, int]:
    """The JSON object at `start`, as text, and where it ends."""
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, start
    return (text[start:end], end) if isinstance(value, dict) else (None, start)


def _with_any_id(between: str) -> str:
    """A pattern for the text between two calls; ids in it differ from call to call."""
    pattern = re.escape(between)
    for probe in _IDS:
        pattern = pattern.replace(re.escape(probe), r"[\w-]+")
    return pattern
