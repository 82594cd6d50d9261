"""Whether the parameters of a tool are a JSON Schema. Nothing is fetched: references are not followed."""

import json
import warnings
from functools import lru_cache
from importlib import import_module
from typing import Any

from trainer.data.findings import FindingList
from trainer.data.quoting import listed, printable, quoted

MAX_KNOWN_CHARS = 64 * 1024
_TYPES = "array, boolean, integer, null, number, object or string"
_ALLOWED = {"uniqueItems": "each item once", "minimum": "a number that is not negative"}


def check_schema(schema: Any, where: str, findings: FindingList) -> None:
    """Check against the metaschema of draft 2020-12."""
    if type(schema) is not dict:
        findings.add("SCHEMA", where, f"is {quoted(schema)}", "an object that holds a JSON Schema")
    elif mistake := _known_mistake(json.dumps(schema)):
        path, found, accepted = mistake
        findings.add("SCHEMA", where + path, found, accepted)


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
    return validator(validator.META_SCHEMA, format_checker=validator.FORMAT_CHECKER)


def _allowed_by(error: Any) -> str:
    """What the metaschema allows where it was broken, in words."""
    if error.absolute_path and error.absolute_path[-1] == "type":
        return _TYPES
    if error.validator == "type":
        kinds = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
        return f"a value of type {listed(kinds, 'or')}"
    if error.validator == "format":
        return f"a valid {error.validator_value}"
    return _ALLOWED.get(error.validator, "what JSON Schema allows there")
