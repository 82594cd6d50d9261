"""Templates and static files of the packages that make up the app: each has the folders `templates` and `static`."""

import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from trainer.web import words

TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".txt": "text/plain"}


@dataclass(frozen=True)
class StaticFile:
    """A file that every browser may have, and may keep under the address with its version."""

    content: bytes
    content_type: str

    @cached_property
    def version(self) -> str:
        return sha256(self.content).hexdigest()[:12]


class Templates:
    """Templates of the packages, with every value escaped and a missing one an error."""

    def __init__(self, packages: Sequence[str]) -> None:
        from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

        loader = ChoiceLoader([PackageLoader(package, "templates") for package in packages])
        self.static = {name: file for package in packages for name, file in _static_files(package)}
        self.environment = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self.environment.filters |= words.FILTERS
        self.environment.globals["static"] = self._address

    def render(self, name: str, /, **values: Any) -> str:
        """A page, or the part of one. Raises: jinja2.UndefinedError, without a value that it shows."""
        return self.environment.get_template(name).render(**values)

    def _address(self, name: str) -> str:
        """The address of a static file, which changes with its content."""
        return f"/static/{name}?v={self.static[name].version}"


def _static_files(package: str) -> "list[tuple[str, StaticFile]]":
    folder = resources.files(package) / "static"
    return list(_below(folder, "")) if folder.is_dir() else []


def _below(folder: Traversable, prefix: str) -> "list[tuple[str, StaticFile]]":
    found: list[tuple[str, StaticFile]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            found += _below(entry, f"{name}/")
        else:
            ending = f".{entry.name.rpartition('.')[2]}"
            kind = TYPES.get(ending) or mimetypes.guess_type(entry.name)[0] or "text/plain"
            found.append((name, StaticFile(entry.read_bytes(), kind)))
    return found
