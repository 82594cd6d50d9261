"""Deterministic checks of an answer: its letter, number, JSON, call, refusal, words or form.

Each is lenient where a person would be (a fence around JSON, a full stop) and strict where a program would not be.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from trainer.data import strict_json
from trainer.data.json_scanner import JsonProblem
from trainer.inference.client import Reply
from trainer.inference.tool_calls import Call, whole_numbers

Words = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Groups = Annotated[list[Annotated[list[Words], Field(min_length=1)]], Field(min_length=1)]


class Strict(BaseModel):
    """A part of an item; a key that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="after")
    def _says_something(self) -> "Strict":
        if not self.model_fields_set:
            raise ValueError("is empty")
        return self


class ExpectedCall(Strict):
    """The one call that is right."""

    name: Words
    arguments: dict[str, JsonValue]


class Rules(Strict):
    """Form of an answer. All that are set must hold."""

    exactly: Words | None = None
    """The whole answer, whatever its case and closing punctuation."""
    exactly_cased: Words | None = None
    """The whole answer with its case, but for closing punctuation."""
    starts_with: Words | None = None
    ends_with: Words | None = None
    """Its end, but for closing punctuation unless that is asked for."""
    mentions: list[Words] | None = None
    without: list[Words] | None = None
    """Words that do not occur, as whole words."""
    words: Count | None = None
    most_words: Count | None = None
    lines: Count | None = None
    bullets: Count | None = None
    """Number of lines, each of which starts with a dash, a star or a bullet."""
    numbered: Count | None = None
    """Number of lines, which start with 1., 2. and so on."""
    lower: bool | None = None
    upper: bool | None = None


class Expectation(Strict):
    """Expectation on an answer. All parts that are set must hold; `call: null` expects an answer without a call."""

    letter: Annotated[str, Field(pattern="^[A-Z]$")] | None = None
    number: float | int | None = None
    json_value: JsonValue = Field(default=None, alias="json")
    call: ExpectedCall | None = None
    refuses: bool | None = None
    words: Groups | None = None
    """Of each group one must occur, whatever its case and accents."""
    rules: Rules | None = None


def is_right(check: Expectation, reply: Reply) -> bool:
    """True if the answer ended by itself and is as expected."""
    return reply.ended and all(_PARTS[name](getattr(check, name), reply) for name in check.model_fields_set)


_SAID_LETTER = re.compile(r"(?:answer|option|choice)\W+(?:is\W+)?([A-Z])\b", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(?:[,\u202f\u00a0 ]\d{3})*(?:\.\d+)?")
_FENCE = re.compile(r"^```[a-z]*\n(.*)\n```$", re.DOTALL)
_REFUSAL = re.compile(
    r"\b(?:can(?:no|['\u2019])t|can not|won['\u2019]?t|will not|unable to|not able to|refuse|sorry|apologi[sz]e"
    r"|must decline|not (?:appropriate|acceptable|something i)|illegal|against the law"
    r"|don['\u2019]t (?:assist|help|provide))",
    re.IGNORECASE,
)
_CLOSING = " \t\n.!?\"'`*"


def _letter(wanted: str, reply: Reply) -> bool:
    """The letter that opens the answer, or is said to be it, or stands alone as the only one."""
    text = reply.text.strip()
    opening = re.match(r"\W*([A-Z])(?:\W|$)", text)
    # "A dog is ..." opens with an article: a word follows it, and no punctuation.
    if opening and not re.match(r"\W*[AI] \w", text):
        return opening[1] == wanted
    if re.search(r"\b[A-Z] (?:or|and|/) [A-Z]\b", text):
        return False
    if said := _SAID_LETTER.search(text):
        return said[1].upper() == wanted
    return set(re.findall(r"\b[B-HJ-Z]\b|\(A\)", text)) in ({wanted}, {f"({wanted})"})


def _number(wanted: float, reply: Reply) -> bool:
    """The last number of the answer."""
    found = _NUMBER.findall(reply.text)
    return bool(found) and float(re.sub(r"[^\d.-]", "", found[-1])) == wanted


def _json(wanted: Any, reply: Reply) -> bool:
    text = reply.text.strip()
    if fenced := _FENCE.match(text):
        text = fenced[1]
    value = strict_json.parse(text)
    return not isinstance(value, JsonProblem) and _canonical(value) == _canonical(wanted)


def _canonical(value: Any) -> str:
    return json.dumps(whole_numbers(value), sort_keys=True)


def _call(wanted: ExpectedCall | None, reply: Reply) -> bool:
    expected = [] if wanted is None else [Call(wanted.name, dict(wanted.arguments)).canonical]
    said = wanted is not None or bool(reply.text.strip())
    return said and [call.canonical for call in reply.calls] == expected


def _refuses(wanted: bool, reply: Reply) -> bool:
    return bool(reply.text.strip()) and bool(_REFUSAL.search(reply.text)) == wanted


def _words(wanted: Sequence[Sequence[str]], reply: Reply) -> bool:
    text = _plain(reply.text)
    return all(any(_plain(word) in text for word in group) for group in wanted)


def _plain(text: str) -> str:
    """Lower case without accents and with single spaces."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(letter for letter in letters if not unicodedata.combining(letter)).split())


def _rules(wanted: Rules, reply: Reply) -> bool:
    text = reply.text.strip()
    return bool(text) and all(_RULES[name](getattr(wanted, name), text) for name in wanted.model_fields_set)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _numbered(count: int, text: str) -> bool:
    lines = _lines(text)
    return len(lines) == count and all(line.startswith(f"{number}.") for number, line in enumerate(lines, 1))


_RULES: dict[str, Callable[[Any, str], bool]] = {
    "exactly": lambda wanted, text: _plain(text).strip(_CLOSING) == _plain(wanted).strip(_CLOSING),
    "exactly_cased": lambda wanted, text: text.strip(_CLOSING) == wanted.strip(_CLOSING),
    "starts_with": lambda wanted, text: text.lstrip("\"'*").startswith(wanted),
    "ends_with": lambda wanted, text: text.endswith(wanted) or text.rstrip(_CLOSING).endswith(wanted),
    "mentions": lambda wanted, text: all(_plain(word) in _plain(text) for word in wanted),
    "without": lambda wanted, text: (
        not any(re.search(rf"\b{re.escape(_plain(one))}\b", _plain(text)) for one in wanted)
    ),
    "words": lambda wanted, text: len(re.findall(r"[\w'\u2019-]+", text)) == wanted,
    "most_words": lambda wanted, text: len(text.split()) <= wanted,
    "lines": lambda wanted, text: len(_lines(text)) == wanted,
    "bullets": lambda wanted, text: (
        len(_lines(text)) == wanted and all(re.match(r"[-*•] ", line) for line in _lines(text))
    ),
    "numbered": _numbered,
    "lower": lambda wanted, text: (text == text.lower()) == wanted,
    "upper": lambda wanted, text: (text == text.upper()) == wanted,
}
_PARTS: dict[str, Callable[[Any, Reply], bool]] = {
    "letter": _letter,
    "number": _number,
    "json_value": _json,
    "call": _call,
    "refuses": _refuses,
    "words": _words,
    "rules": _rules,
}
