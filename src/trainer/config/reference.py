"""The config's JSON Schema and its reference page, made from the schema's own docstrings."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trainer.config.schema import RunConfig

HEADER = """# Config reference

Made from the code by `trainer config reference`. Any setting can be given on the command line as
`section.name=value`. A setting that may be `auto` gets its number before the run starts; the run's own `config.yaml`
shows it.
"""


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the config file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | RunConfig.model_json_schema()


def markdown() -> str:
    """One table a section: setting, what it takes, default, meaning."""
    return "\n".join([HEADER, *_sections(RunConfig, "")])


def _sections(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, info in section.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield f"## {prefix}{name}\n\n{inner.__doc__}\n\n| setting | takes | default | meaning |\n|---|---|---|---|"
            own = {key: field for key, field in inner.model_fields.items() if not _is_section(field)}
            yield "\n".join(_row(f"{prefix}{name}.{key}", field) for key, field in own.items()) + "\n"
            yield from _sections(inner, f"{prefix}{name}.")


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _row(name: str, field: FieldInfo) -> str:
    default = "**required**" if field.default is PydanticUndefined else f"`{_plain(field.default)}`"
    cells = (f"`{name}`", _takes(field.annotation), default, field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _takes(annotation: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _takes(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_takes(argument) for argument in arguments if argument is not type(None))
    if origin is list:
        return f"list of {_takes(arguments[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "{" + ", ".join(annotation.model_fields) + "}"
    return {int: "whole number", float: "number", bool: "true or false", str: "text"}[annotation]
