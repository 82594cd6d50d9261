"""Reader of OpenAPI: each operation as text, with the function schema by which a model can call it."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import yaml

from trainer.data.json_scanner import MAX_DEPTH
from trainer.data.quoting import printable
from trainer.errors import DataError, quoted
from trainer.workshop.documents.passages import Document, Record
from trainer.workshop.documents.text import read_text

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
# Keywords of a schema that help to write arguments; examples, XML names and extensions do not.
_KEPT = frozenset({
    "type", "title", "description", "enum", "const", "default", "format", "pattern", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "minItems", "maxItems",
    "uniqueItems", "minProperties", "maxProperties", "required",
})  # fmt: skip
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MOST_NODES, _MOST_DEPTH = 10_000, 100
_MOST_GROWTH = 20  # of a file's text by its aliases
_MOST_NAME, _MOST_DESCRIPTION = 64, 1_000
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NAMED = re.compile(r"^[\"']?(?:openapi|swagger)[\"']?\s*:", re.MULTILINE)
_NOT_NAMED = re.compile(r"[^A-Za-z0-9_-]+")


def is_openapi(value: Any) -> bool:
    """True for the object of an OpenAPI or Swagger file."""
    return isinstance(value, Mapping) and ("openapi" in value or "swagger" in value) and "paths" in value


def read_yaml(text: str, source: str) -> Document:
    """Operations of an OpenAPI file, or the text of another one. Raises: DataError."""
    if not _NAMED.search(text):
        return read_text(text)
    try:
        _refuse_growth(text)
        value = _YAML_LOADER(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DataError(
            f"{printable(source)}:{line}: is not YAML ({printable(str(error.problem))}), "
            "expected an OpenAPI file; correct it"
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        words = " ".join(str(error).split())[:100]
        raise DataError(
            f"{printable(source)}: is not YAML ({printable(words)}), expected an OpenAPI file; correct it"
        ) from None
    return read_openapi(value, source) if is_openapi(value) else read_text(text)


def _refuse_growth(text: str) -> None:
    """Raises: ValueError, for values that nest without end, which overflow a stack, or grow so by their aliases."""
    most = _MOST_GROWTH * len(text) + _MOST_NODES
    open_ones: list[tuple[str | None, int]] = []
    sizes: dict[str, int | None] = {}  # None while a value is open
    size = 0
    for event in yaml.parse(text, Loader=_YAML_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            open_ones.append((event.anchor, size))
            if len(open_ones) > MAX_DEPTH:
                raise ValueError(f"values nested more than {MAX_DEPTH} deep")
            if event.anchor is not None:
                sizes[event.anchor] = None
            size += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_ones.pop()
            if anchor is not None:
                sizes[anchor] = size - before
        elif isinstance(event, yaml.ScalarEvent):
            size += 1 + len(event.value)
            if event.anchor is not None:
                sizes[event.anchor] = 1 + len(event.value)
        elif isinstance(event, yaml.AliasEvent):
            more = sizes.get(event.anchor or "", 0)  # the loader tells of a name that is not known
            if more is None:
                raise ValueError(f"the value {event.anchor!r} holds itself")
            size += more
        if size > most:
            raise ValueError(f"aliases that make more than {_MOST_GROWTH} times as much of the text")


def read_openapi(value: Mapping[str, Any], source: str) -> Document:
    """A record for each operation, in the order of the file. References within the file alone are followed.

    Raises: DataError, with every operation that cannot be understood.
    """
    api = _Api(value, source)
    records = list(api.operations())
    if api.problems:
        raise DataError(*dict.fromkeys(api.problems))
    return [*records]


@dataclass
class _Api:
    """A file of operations, and the problems of those that were read."""

    root: Mapping[str, Any]
    source: str
    problems: list[str] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    place: str = ""
    num_nodes: int = 0

    def operations(self) -> Iterator[Record]:
        paths = self.root["paths"]
        for path, item in paths.items() if isinstance(paths, Mapping) else ():
            self.place = str(path)
            found = self.resolved(item)
            for method in _METHODS:
                if isinstance(operation := found.get(method), Mapping):
                    self.place, self.num_nodes = f"{method.upper()} {path}", 0
                    yield self.record(method, str(path), operation, _listed(found.get("parameters")))

    def record(self, method: str, path: str, operation: Mapping[str, Any], shared: list[Any]) -> Record:
        by_name: dict[tuple[str, str], Mapping[str, Any]] = {}
        for written in (*shared, *_listed(operation.get("parameters"))):  # those of the operation replace shared ones
            parameter = self.resolved(written)
            by_name[str(parameter.get("name", "")), str(parameter.get("in", ""))] = parameter
        parameters = [parameter for (name, place), parameter in by_name.items() if name and place != "cookie"]
        schema = self.schema_of(parameters, operation)
        name = self.name_of(str(operation.get("operationId") or method + path))
        summary, description = (_words(operation.get(key)) for key in ("summary", "description"))
        said = "\n\n".join(dict.fromkeys(filter(None, (summary, description)))) or self.place
        function = {"name": name, "description": said[:_MOST_DESCRIPTION], "parameters": schema}
        texts = [f"{name}: {self.place}", said, *self.text_of(schema), *self.responses(operation)]
        return Record(
            "\n\n".join(texts), self.place, self.title(), json.dumps(function, ensure_ascii=False, default=str)
        )

    def schema_of(self, parameters: list[Mapping[str, Any]], operation: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments: parameters by their names, and the fields of the body beside them where none has the same."""
        properties: dict[str, Any] = {}
        required: list[str] = []
        body = self.body_of(operation)
        for parameter in parameters:
            if parameter.get("in") == "body":  # of Swagger 2
                body = (parameter.get("schema", {}), bool(parameter.get("required")))
                continue
            name = str(parameter["name"])
            written = parameter.get("schema") or _schema_in_content(parameter) or parameter
            schema = self.plain(written, ())
            if description := _words(parameter.get("description")):
                schema["description"] = description
            properties[name] = schema
            if parameter.get("required") is True or parameter.get("in") == "path":
                required.append(name)
        if body:
            self.add_body(body, properties, required)
        found: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
        return found | ({"required": required} if required else {})

    def body_of(self, operation: Mapping[str, Any]) -> tuple[Any, bool] | None:
        """Schema of the request's body, and True where it is required."""
        body = self.resolved(operation.get("requestBody") or {})
        schema = _schema_in_content(body)
        return (schema, body.get("required") is True) if schema is not None else None

    def add_body(self, body: tuple[Any, bool], properties: dict[str, Any], required: list[str]) -> None:
        schema = self.plain(body[0], ())
        inner = schema.get("properties")
        is_open = schema.keys() & {"additionalProperties", *_LISTS}
        if isinstance(inner, dict) and inner and not is_open and not inner.keys() & properties.keys():
            properties |= inner
            required += [name for name in schema.get("required", []) if body[1] and name in inner]
        else:
            properties["body"] = schema
            if body[1]:
                required.append("body")

    def plain(self, written: Any, above: tuple[str, ...]) -> dict[str, Any]:
        """A schema without references; one that holds itself stands for any object at its second time."""
        self.num_nodes += 1
        if self.num_nodes > _MOST_NODES or len(above) > _MOST_DEPTH:
            return self.wrong("has a schema that is too large", "a smaller one; cut it, or leave the operation out")
        if not isinstance(written, Mapping):  # true and false are schemas, too
            return {}
        if isinstance(reference := written.get("$ref"), str):
            if reference in above:
                return {"type": "object", "description": f"another {reference.rpartition('/')[2]}"}
            return self.plain(self.target(reference), (*above, reference))
        above = (*above, "")
        found = {key: inner for key, inner in written.items() if key in _KEPT}
        for key, kind in (("required", list), ("title", str), ("description", str), ("enum", list)):
            if not isinstance(found.get(key), kind):  # `required` of Swagger 2's parameters is a boolean
                found.pop(key, None)
        if written.get("nullable") is True and isinstance(found.get("type"), str):  # of OpenAPI 3.0
            found["type"] = [found["type"], "null"]
        for key in ("exclusiveMinimum", "exclusiveMaximum"):  # booleans until OpenAPI 3.0
            if isinstance(found.get(key), bool):
                bound = found.pop(key) and found.pop(f"m{key[10:]}", None)
                found |= {key: bound} if isinstance(bound, int | float) and not isinstance(bound, bool) else {}
        if isinstance(properties := written.get("properties"), Mapping):
            found["properties"] = {
                str(name): self.plain(inner, above)
                for name, inner in properties.items()
                if not (isinstance(inner, Mapping) and inner.get("readOnly") is True)
            }
            if "required" in found:
                found["required"] = [name for name in found["required"] if name in found["properties"]]
        if "items" in written:
            found["items"] = self.plain(written["items"], above)
        if isinstance(written.get("additionalProperties"), Mapping):
            found["additionalProperties"] = self.plain(written["additionalProperties"], above)
        for key in _LISTS:
            if inner := [self.plain(one, above) for one in _listed(written.get(key))]:
                found[key] = inner
        return found

    def resolved(self, written: Any) -> Mapping[str, Any]:
        """An object of the file, its reference followed; an empty one where there is none."""
        seen: set[str] = set()
        while isinstance(written, Mapping) and isinstance(reference := written.get("$ref"), str):
            if reference in seen:
                self.wrong(f"has a $ref that leads to itself, {quoted(reference)}", "one that ends; correct it")
                return {}
            seen.add(reference)
            written = self.target(reference)
        return written if isinstance(written, Mapping) else {}

    def target(self, reference: str) -> Any:
        """The part of the file that a reference names."""
        if not reference.startswith("#/") and reference != "#":
            return self.wrong(
                f"has the $ref {quoted(reference)}, which leads out of the file",
                "references that begin with '#/'; bundle the API into one file",
            )
        found: Any = self.root
        for part in reference[2:].split("/") if reference != "#" else []:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, Mapping) and (name in found or (name.isdecimal() and int(name) in found)):
                found = found[name] if name in found else found[int(name)]  # YAML reads the key 200 as a number
            else:
                return self.wrong(
                    f"has the $ref {quoted(reference)}, which names nothing", "a part of the file; correct it"
                )
        return found

    def wrong(self, found: str, accepted: str) -> dict[str, Any]:
        self.problems.append(f"{printable(self.source)}: {printable(self.place)} {found}, expected {accepted}")
        return {}

    def name_of(self, wanted: str) -> str:
        """A name that a function may have, and no other one has."""
        name = own = _NOT_NAMED.sub("_", wanted).strip("_")[:_MOST_NAME] or "operation"
        number = 1
        while name in self.taken:
            number += 1
            name = f"{own[: _MOST_NAME - len(str(number)) - 1]}_{number}"
        self.taken.add(name)
        return name

    def title(self) -> str:
        info = self.root.get("info")
        return _words(info.get("title")) if isinstance(info, Mapping) else ""

    def text_of(self, schema: Mapping[str, Any]) -> list[str]:
        """The arguments in words, a line each."""
        if not schema["properties"]:
            return ["It takes no arguments."]
        required = schema.get("required", [])
        lines = []
        for name, inner in schema["properties"].items():
            about = [_type_words(inner), "required" if name in required else "optional"]
            description = _words(inner.get("description"))
            lines.append(f"- {name} ({', '.join(filter(None, about))})" + (f": {description}" if description else ""))
        return ["Arguments:\n" + "\n".join(lines)]

    def responses(self, operation: Mapping[str, Any]) -> list[str]:
        responses = operation.get("responses")
        lines = []
        for status, written in responses.items() if isinstance(responses, Mapping) else ():
            if description := _words(self.resolved(written).get("description")):
                lines.append(f"- {status}: {description}")
        return ["Answers:\n" + "\n".join(lines)] if lines else []


def _schema_in_content(holder: Mapping[str, Any]) -> Any:
    """The schema of JSON content, else of the first kind of content that has one."""
    content = holder.get("content")
    if not isinstance(content, Mapping):
        return None
    kinds = sorted(content, key=lambda kind: "json" not in str(kind))
    schemas = (content[kind].get("schema") for kind in kinds if isinstance(content[kind], Mapping))
    return next((schema for schema in schemas if schema is not None), None)


def _type_words(schema: Mapping[str, Any]) -> str:
    kinds = schema.get("type")
    words = " or ".join(map(str, kinds)) if isinstance(kinds, list) else str(kinds or "")
    if isinstance(choices := schema.get("enum"), list):
        words += f"{': ' if words else ''}one of {json.dumps(choices, ensure_ascii=False, default=str)}"
    return words


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _words(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
