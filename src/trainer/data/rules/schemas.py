"""Parameters of tools as JSON Schemas. Nothing is fetched: references are not followed."""

import json
import re
import warnings
from functools import lru_cache
from importlib import import_module
from typing import Any

from trainer.data.quoting import listed, printable, quoted
from trainer.data.rules.findings import FindingList

MAX_KNOWN_CHARS = 64 * 1024
_TYPES = "array, boolean, integer, null, number, object or string"
# What is wrong in any dialect. JSON Schema's patterns are ECMA 262's, of which Python's engine knows a part: \\p{L},
# (?<name>…) and a look-behind of any length are not mistakes.
_BROKEN_PATTERNS = (
    "missing ), unterminated subpattern", "unbalanced parenthesis", "unterminated character set",
    "bad escape (end of pattern)", "nothing to repeat", "min repeat greater than max repeat",
)  # fmt: skip
_EMPTY_SETS = re.compile(r"(?<!\\)\[\^?\]")  # every character, and none: valid in ECMA 262 only
_SHAPING = {"type", "properties", "$ref", "anyOf", "allOf", "oneOf", "not", "if", "enum", "const", "required"}
_SHAPING |= {"additionalProperties", "patternProperties", "propertyNames", "minProperties", "maxProperties"}
_ALLOWED = {"uniqueItems": "each item once", "minimum": "a number that is not negative"}


def check_schema(schema: Any, where: str, findings: FindingList) -> None:
    """Check against the metaschema of draft 2020-12."""
    if type(schema) is not dict:
        findings.add("SCHEMA", where, f"is {quoted(schema)}", "an object that holds a JSON Schema")
    elif mistake := _known_mistake(json.dumps(schema)):
        path, found, accepted = mistake
        findings.add("SCHEMA", where + path, found, accepted)
    elif flat := _flat(schema):
        fix = f'write {{"type": "object", "properties": {{{json.dumps(flat)}: …}}}}'
        findings.add("SCHEMA", where, f"lists {quoted(flat)} itself", "a JSON Schema with properties", fix)


def _flat(schema: dict[str, Any]) -> str | None:
    """A parameter that stands where keywords do, as xLAM's data has it: a schema of no keyword allows everything."""
    if _SHAPING & schema.keys():
        return None
    for name, value in schema.items():
        described = isinstance(value, dict) and ("type" in value or "description" in value)
        if described and name not in _keywords() and not name.startswith(("$", "x-")):
            return name
    return None


@lru_cache(maxsize=1)
def _keywords() -> frozenset[str]:
    return frozenset(_validator().VALIDATORS) | {"title", "default", "examples", "definitions", "contentSchema"}


def _known_mistake(schema: str) -> tuple[str, str, str] | None:
    """Rows share their tools, so that each schema is checked once; long ones are not kept."""
    return _short_mistake(schema) if len(schema) <= MAX_KNOWN_CHARS else _mistake(schema)


def _mistake(schema: str) -> tuple[str, str, str] | None:
    """(path, found, accepted) of the first mistake."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of re, about patterns that will mean something else one day
            error = next(_validator().iter_errors(json.loads(schema)), None)
    except (RecursionError, OverflowError):
        return "", "is too deep or too large to be checked", "a JSON Schema of tool arguments"
    if error is None:
        return None
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    return printable(path), f"is {quoted(error.instance)}", _allowed_by(error)


_short_mistake = lru_cache(maxsize=1024)(_mistake)


@lru_cache(maxsize=1)
def _validator() -> Any:
    # By name, so that it is loaded late: few files need it and it is slow to load.
    validator = import_module("jsonschema").Draft202012Validator
    formats = import_module("jsonschema").FormatChecker(())
    formats.checkers = {"regex": (_is_pattern, ())}
    return validator(validator.META_SCHEMA, format_checker=formats)


def _is_pattern(text: object) -> bool:
    """True if a text may be a pattern of ECMA 262."""
    if not isinstance(text, str):
        return True
    try:
        re.compile(_EMPTY_SETS.sub(".", text))
    except re.error as error:
        return not error.msg.startswith(_BROKEN_PATTERNS)
    return True


def _allowed_by(error: Any) -> str:
    """Values that the metaschema allows at the place of the error, in words."""
    if error.absolute_path and error.absolute_path[-1] == "type":
        return _TYPES
    if error.validator == "type":
        kinds = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
        return f"a value of type {listed(kinds, 'or')}"
    if error.validator == "format":
        return f"a valid {error.validator_value}"
    return _ALLOWED.get(error.validator, "what JSON Schema allows there")
