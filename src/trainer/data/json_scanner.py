"""Scanner that finds where and why a text stops being JSON: no recursion, each character read once."""

import json
import math
import re
from dataclasses import dataclass

from trainer.data.quoting import quoted, shortened

MAX_DEPTH = 64
INT64 = range(-(2**63), 2**63)

# Possessive quantifiers: a plain (…+|…)* over an unterminated string would backtrack exponentially.
_BODY = re.compile(r'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+')
_TOKEN = re.compile(
    rf'"{_BODY.pattern}"'
    r"|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?(?![0-9A-Za-z_.+-])"
    r"|(?:true|false|null)(?![A-Za-z0-9_])"
    r"|[{}\[\]:,]"
)
_SPACE = re.compile(r"[ \t\r\n]*+")
_BARE = re.compile(r"[-+.]?[A-Za-z0-9_$][A-Za-z0-9_$.+-]*")
# Group 1 holds a surrogate that is not half of a pair; pairs and other escapes are stepped over.
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)")
_CLOSING = {"{": "}", "[": "]"}
_NAMES = {"{": "an object", "[": "a list"}
_FOREIGN_WORDS = {"None": "null", "True": "true", "False": "false", "undefined": "null", "nil": "null"}
_CONTROLS = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
_EXPECTED = {"key": "a key", "first key": "a key", "colon": "':' after a key", "value": "a value", "item": "a value"}
_EXPECTED["first item"] = "a value or ']'"
_ONE_A_LINE = "put every row on a line of its own"
_BACKSLASH = "write a backslash as \\\\"
_INNER_QUOTE = 'write a double quote inside text as \\"'
_CUT_OFF = "the line is cut off: write the whole row on one line"
_NOT_PYTHON = "this is Python and not JSON: write rows with json.dumps"


@dataclass(frozen=True, slots=True)
class JsonProblem:
    """The first mistake of a text; `column` counts characters from 1."""

    code: str
    column: int
    found: str
    accepted: str
    fix: str | None = None
    truncated: bool = False


class _Stop(Exception):
    def __init__(self, problem: JsonProblem) -> None:
        self.problem = problem


def find_problem(text: str) -> JsonProblem | None:
    """The first mistake of `text`, None where it is one JSON value as this format allows it."""
    try:
        _Scanner(text).scan()
    except _Stop as stop:
        return stop.problem
    return None


class _Scanner:
    """Goes from token to token and stops at the first that may not stand where it stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.start = 0  # of the current token
        self.end = 0
        self.state = "value"  # or item, first item, key, first key, colon, rest
        self.open: list[tuple[str, set[str]]] = []  # the opening mark and, in an object, the keys so far

    def scan(self) -> None:
        while token := self._next_token():
            self.state = self._step(self.state, token)
        if self.open:
            opener = self.open[-1][0]
            found, accepted = f"ends inside {_NAMES[opener]}", f"a closing {_CLOSING[opener]!r}"
            raise self._stop("JSON", found, accepted, _CUT_OFF, truncated=True)
        if self.state == "value":
            raise self._stop("JSON", "is empty", "one JSON object")

    def _next_token(self) -> str:
        space = _SPACE.match(self.text, self.end)
        self.start = space.end() if space else self.end
        if self.start == len(self.text):
            return ""
        if not (match := _TOKEN.match(self.text, self.start)):
            raise self._lexical_mistake()
        self.end = match.end()
        return match[0]

    def _step(self, state: str, token: str) -> str:
        """Accept `token` and tell what may follow it."""
        mark, opener = token[0], self.open[-1][0] if self.open else ""
        if state in ("value", "item", "first item") and mark not in ":,]}":
            return self._value(mark, token)
        if state in ("key", "first key") and mark == '"':
            return self._key(token)
        if state == "colon" and mark == ":":
            return "value"
        if state == "rest" and opener and mark == ",":
            return "key" if opener == "{" else "item"
        if opener and mark == _CLOSING[opener] and state in ("rest", "first item", "first key"):
            self.open.pop()
            return "rest"
        raise self._grammar_mistake(state, token, opener)

    def _value(self, mark: str, token: str) -> str:
        if mark in "{[":
            if len(self.open) == MAX_DEPTH:
                raise self._stop("NESTING", f"is nested deeper than {MAX_DEPTH}", f"at most {MAX_DEPTH} levels")
            self.open.append((mark, set()))
            return "first key" if mark == "{" else "first item"
        if mark == '"':
            self._check_characters(token)
        elif mark in "-0123456789":
            self._check_number(token)
        return "rest"

    def _key(self, token: str) -> str:
        self._check_characters(token)
        key = json.loads(token)
        keys = self.open[-1][1]
        if key in keys:
            raise self._stop("DUPLICATE_KEY", f"has the key {quoted(key)} twice in one object", "every key once")
        keys.add(key)
        return "colon"

    def _check_number(self, token: str) -> None:
        is_real = not set(token).isdisjoint(".eE")
        if math.isinf(float(token)) if is_real else len(token) > 20 or int(token) not in INT64:
            raise self._stop("NUMBER", f"holds the number {shortened(token)}", "a number that fits in 64 bits")

    def _check_characters(self, token: str) -> None:
        if (half := half_character(token)) is not None:
            found = f"holds half of a character, the lone surrogate {token[half : half + 6]}"
            raise self._stop("ENCODING", found, "whole characters", "write it whole", at=self.start + half)

    def _grammar_mistake(self, state: str, token: str, opener: str) -> _Stop:
        shown = quoted(token[0] if token[0] == '"' else token)
        if not opener:
            return self._stop("JSON", f"continues with {shown} after its end", "one JSON object on a line", _ONE_A_LINE)
        if state in ("key", "item") and token == _CLOSING[opener]:
            return self._stop(
                "JSON", f"has a comma before {shown}", "no comma after the last value", "remove the comma"
            )
        if state == "rest" and token not in ("}", "]", ":"):
            return self._stop("JSON", f"has no comma before {shown}", f"',' or {_CLOSING[opener]!r}", "add the comma")
        accepted = _EXPECTED.get(state) or f"',' or {_CLOSING[opener]!r}"
        return self._stop("JSON", f"holds {shown} in {_NAMES[opener]}", accepted)

    def _lexical_mistake(self) -> _Stop:
        character = self.text[self.start]
        if character == '"':
            return self._string_mistake()
        if character == "\ufeff":
            return self._stop("ENCODING", "holds a byte order mark (U+FEFF)", "one at the start of a file at most")
        if character in "'`\u2018\u2019\u201c\u201d":
            return self._stop(
                "JSON", f"holds the quote {quoted(character)}", "double quotes", "write rows with a JSON library"
            )
        if character in "/#":
            return self._stop("JSON", f"holds {quoted(character)}", "JSON, which has no comments", "remove the comment")
        if bare := _BARE.match(self.text, self.start):
            return self._word_mistake(bare[0])
        return self._stop("JSON", f"holds {quoted(character)} outside a string", "JSON")

    def _word_mistake(self, word: str) -> _Stop:
        if self.state == "rest" and self.open:
            accepted = f"',' or {_CLOSING[self.open[-1][0]]!r}"
            return self._stop("JSON", f"continues with {quoted(word)} after a value", accepted, _INNER_QUOTE)
        if word.lstrip("+-").lower() in ("nan", "infinity", "inf"):
            return self._stop("NUMBER", f"holds the number {shortened(word)}", "a finite number or null")
        if word in _FOREIGN_WORDS:
            return self._stop("JSON", f"holds the word {word}", _FOREIGN_WORDS[word], _NOT_PYTHON)
        if word[0] in "+-.0123456789":
            return self._stop("JSON", f"holds the number {shortened(word)}", "a number as JSON writes it")
        return self._stop("JSON", f"holds the bare word {quoted(word)}", "double quotes around names and text")

    def _string_mistake(self) -> _Stop:
        body = _BODY.match(self.text, self.start + 1)
        at = body.end() if body else self.start
        if at == len(self.text):
            return self._stop("JSON", "ends inside a string", "a closing '\"'", _CUT_OFF, truncated=True)
        character = self.text[at]
        if character == "\\":
            escape = quoted(self.text[at : at + 2])
            return self._stop("JSON", f"holds the escape {escape}", "an escape that JSON knows", _BACKSLASH, at=at)
        found = f"holds the control character U+{ord(character):04X} inside a string"
        accepted = "the escape " + (_CONTROLS.get(character) or f"\\u{ord(character):04x}")
        return self._stop("JSON", found, accepted, "escape it", at=at)

    def _stop(
        self, code: str, found: str, accepted: str, fix: str | None = None, *, at: int | None = None,
        truncated: bool = False,
    ) -> _Stop:  # fmt: skip
        column = (self.start if at is None else at) + 1
        return _Stop(JsonProblem(code, column, found, accepted, fix, truncated))


def half_character(text: str) -> int | None:
    """Position of a surrogate escape without its other half in the JSON `text`."""
    return next((escape.start() for escape in _ESCAPE.finditer(text) if escape[1]), None)
