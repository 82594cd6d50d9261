"""What a command prints with --format json, held against its schema in docs/json.schema.json."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from tests.commands import Done, performed

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "json.schema.json").read_text(encoding="utf-8"))


def schema_of(name: str) -> dict[str, Any]:
    """The schema of one command's document."""
    (key,) = [key for key, part in SCHEMA["$defs"].items() if _names(part).get("document") == name]
    return SCHEMA | {"anyOf": [{"$ref": f"#/$defs/{key}"}]}


def _names(part: dict[str, Any]) -> dict[str, Any]:
    return {field: inner.get("const") for field, inner in part.get("properties", {}).items()}


def answered(*words: str, code: int = 0) -> dict[str, Any]:
    """The document of a command that ends with `code`; its whole standard output is that document."""
    return document_of(performed((*words, "--format", "json"), lambda: 0.0), code)


def document_of(done: Done, code: int = 0, expected: str | None = None) -> dict[str, Any]:
    """The document that a command has printed, valid by its schema; it is named as the command, or as is `expected`."""
    assert (done.code, done.has_traceback) == (code, False), done.err
    document: dict[str, Any] = json.loads(done.out, parse_constant=lambda name: 1 / 0)
    name = str(document["document"])
    assert name == (expected or " ".join(done.words[: len(name.split())]))
    Draft202012Validator(schema_of(document["document"])).validate(document)
    return document
