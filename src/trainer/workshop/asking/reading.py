"""Reading of an answer: JSON by its schema or a problem in words, never a guess at what prose may mean."""

import re
from collections.abc import Mapping
from typing import Any

from trainer.data.json_scanner import JsonProblem
from trainer.data.strict_json import parse
from trainer.errors import quoted

FENCED = re.compile(r"\s*```(?:json)?[ \t]*\n(.*)\n[ \t]*```\s*", re.DOTALL)  # one fence around the whole answer


def read_json(text: str, schema: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The object, or None and the problem in words."""
    from jsonschema import Draft202012Validator

    fenced = FENCED.fullmatch(text)
    value = parse(fenced[1] if fenced else text.strip())
    if isinstance(value, JsonProblem):
        return None, f"it is no JSON: {value.found} at character {value.column}"
    for error in Draft202012Validator(schema).iter_errors(value):
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
        return None, f"it is not of the schema: {place.lstrip('.') or 'the answer'}: {quoted(error.message, 160)[1:-1]}"
    if not isinstance(value, dict):
        return None, "it is no JSON object"
    return value, ""
