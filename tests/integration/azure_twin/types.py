"""Bodies of Azure Resource Manager held against the service's published types, as strictly as these say.

The types are found through TRAINER_SPECS (`azureml/<api-version>.json`, in bicep's format): those of the version that
is spoken, or of the newest one before it. Without it nothing is checked and `checked` stays as it was.
"""

import json
import os
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

REQUIRED, READ_ONLY, WRITE_ONLY = 1, 2, 4
ENVELOPE = frozenset({"id", "name", "type", "apiVersion", "systemData"})  # the service's, around every resource
# Three quirks of the types: a hash's version is sent as a number, every number is an integer, and the path of a
# container's route has to hold a letter, although Azure's own examples give "/".
LENIENT = re.compile(r"(hash_version|hashVersion|slackFactor|Route\.path)$")
PREFIX = "Microsoft.MachineLearningServices/"


class Types:
    """`findings` holds what did not fit: where, and how."""

    def __init__(self) -> None:
        self.findings: list[str] = []
        self.checked: Counter[str] = Counter()

    def check(self, kind: str, version: str, body: Any, answer: bool) -> None:
        """`kind` is the resource's type below the provider, such as `workspaces/jobs`."""
        found = _resource(kind, version)
        if found is None:
            return
        types, body_type = found
        place = f"{version} {kind} {'answer' if answer else 'request'}"
        self.checked[kind] += 1
        own = {name: value for name, value in body.items() if name not in ENVELOPE}
        self.findings += [f"{place}: {text}" for text in _Walk(types, answer).findings(body_type, own, "")]


class _Walk:
    def __init__(self, types: list[Any], answer: bool) -> None:
        self.types, self.answer = types, answer

    def at(self, reference: Any) -> Any:
        return self.types[int(reference["$ref"].removeprefix("#/"))]

    def findings(self, kind: Any, value: Any, path: str) -> list[str]:
        if value is None or LENIENT.search(path):
            return []
        match kind["$type"]:
            case "AnyType":
                return []
            case "StringType":
                fits = isinstance(value, str) and bool(re.search(kind.get("pattern") or "", value))
            case "StringLiteralType":
                fits = value == kind["value"]
            case "IntegerType":
                fits = isinstance(value, int | float) and not isinstance(value, bool)
            case "BooleanType":
                fits = isinstance(value, bool)
            case "ArrayType":
                return self._array(kind, value, path)
            case "UnionType":
                fits = any(not self.findings(self.at(one), value, path) for one in kind["elements"])
            case "ObjectType":
                return self._object(kind.get("properties", {}), kind.get("additionalProperties"), value, path)
            case "DiscriminatedObjectType":
                return self._discriminated(kind, value, path)
            case other:
                raise AssertionError(f"an unknown type of type: {other}")
        return [] if fits else [f"{path}: {value!r} does not fit {kind['$type']}"]

    def _array(self, kind: Any, value: Any, path: str) -> list[str]:
        if not isinstance(value, list):
            return [f"{path}: {value!r} is no array"]
        item = self.at(kind["itemType"])
        return [text for number, one in enumerate(value) for text in self.findings(item, one, f"{path}[{number}]")]

    def _discriminated(self, kind: Any, value: Any, path: str) -> list[str]:
        if not isinstance(value, dict) or value.get(kind["discriminator"]) not in kind["elements"]:
            return [f"{path}.{kind['discriminator']}: expected one of {', '.join(kind['elements'])}"]
        element = self.at(kind["elements"][value[kind["discriminator"]]])
        return self._object(kind["baseProperties"] | element["properties"], None, value, path)

    def _object(self, properties: Any, additional: Any, value: Any, path: str) -> list[str]:
        if not isinstance(value, dict):
            return [f"{path}: {value!r} is no object"]
        found: list[str] = []
        for name, one in value.items():
            if name in properties:
                found += self._property(properties[name], one, f"{path}.{name}")
            elif additional is not None:
                found += self.findings(self.at(additional), one, f"{path}.{name}")
            else:
                found.append(f"{path}.{name}: unknown")
        for name, about in properties.items():
            if name not in ENVELOPE and about["flags"] & REQUIRED and value.get(name) is None:
                found.append(f"{path}.{name}: required")
        return found

    def _property(self, about: Any, value: Any, path: str) -> list[str]:
        if value is not None and about["flags"] & (WRITE_ONLY if self.answer else READ_ONLY):
            return [f"{path}: {'only in requests' if self.answer else 'only in answers'}"]
        return self.findings(self.at(about["type"]), value, path)


@cache
def _load(version: str) -> list[Any] | None:
    folder = Path(os.environ.get("TRAINER_SPECS") or "/nowhere") / "azureml"
    found = sorted(path for path in folder.glob("*.json") if path.stem <= version)
    return json.loads(found[-1].read_text()) if found else None


def _resource(kind: str, version: str) -> tuple[list[Any], Any] | None:
    types = _load(version)
    if types is None:
        return None
    wanted = f"{PREFIX}{kind}".lower()
    for one in types:
        if one["$type"] == "ResourceType" and one["name"].lower().partition("@")[0] == wanted:
            return types, types[int(one["body"]["$ref"].removeprefix("#/"))]
    return None
