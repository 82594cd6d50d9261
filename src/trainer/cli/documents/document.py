"""Base of all documents: a name, a version, and text that is JSON whatever a file's name holds."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from trainer.cli.console import print_as_is


def _open(schema: dict[str, Any]) -> None:
    """We make no document with a field too many; who reads one is to bear fields that come later."""
    schema.pop("additionalProperties", None)


class Part(BaseModel):
    """A part of a document. A figure that is not finite, for which JSON has no word, becomes null."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        from_attributes=True,
        allow_inf_nan=False,
        json_schema_extra=_open,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return plain(value)


class Document(Part):
    """The only thing that its command prints to standard output; each has a `document` with the command's words."""

    version: Literal[1] = 1
    """Raised when a field changes its meaning or goes; new fields may come without it."""

    def print(self) -> None:
        rest = self.model_dump(mode="json")
        print_as_is(json.dumps({"document": rest.pop("document")} | rest, indent=2))


def plain(value: Any) -> Any:
    """The value with text that UTF-8 can hold: a file's name may be other bytes, which are written as escapes."""
    match value:
        case str():
            return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
        case Path():
            return plain(str(value))
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {plain(key): plain(inner) for key, inner in value.items()}
        case list() | tuple() | Iterator():
            return [plain(inner) for inner in value]
    return value
