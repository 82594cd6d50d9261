"""JSON as RFC 8259 has it, minus what would not be kept: duplicate keys, numbers out of range, half characters.

A line is parsed by the standard library's C scanner, whose hooks see duplicate keys and numbers. Only a line that
fails is read a second time, token by token (`json_scanner`), to find out where and why.
"""

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

from trainer.data.json_scanner import INT64, MAX_DEPTH, JsonProblem, find_problem, half_character


class _Refused(ValueError):
    """The fast parser met something that JSON or this format does not allow."""


def parse(text: str) -> Any | JsonProblem:
    """The value that `text` holds, or its first problem."""
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return find_problem(text) or JsonProblem("JSON", 1, "cannot be read as JSON", "one JSON object")
    if _is_suspicious(text, value):
        return find_problem(text) or value
    return value


def _is_suspicious(text: str, value: Any) -> bool:
    """True if the C scanner may have passed faults that it does not look for: half surrogate pairs and depth."""
    if ("\\ud" in text or "\\uD" in text) and half_character(text) is not None:
        return True
    return text.count("{") + text.count("[") > MAX_DEPTH and _is_deep(value)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _containers_in(parent)]
    return bool(level)


def _containers_in(value: Any) -> Iterator[Any]:
    items = value.values() if type(value) is dict else value
    return (item for item in items if type(item) is dict or type(item) is list)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _Refused
    return fields


def _integer(digits: str) -> int:
    # The length first: int() refuses more than 4,300 digits and takes quadratic time for fewer.
    if len(digits) > 20 or int(digits) not in INT64:
        raise _Refused
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _Refused
    return value


def _refuse_constant(_: str) -> NoReturn:
    raise _Refused


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_real, parse_constant=_refuse_constant
)
