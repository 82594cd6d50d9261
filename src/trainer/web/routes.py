"""Routes: a path, its handler, and the policy that every request to it is held to.

A handler takes the request and returns a response. A plain function runs in a thread, where it may wait for files and
services; a coroutine runs in the event loop and must never block.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import ASGIApp

Handler = Callable[[Request], ASGIApp | Awaitable[ASGIApp]]

MAX_FORM_BYTES = 1024 * 1024


class Access(Enum):
    """Policy of a route. The host is checked for all of them, Origin and Sec-Fetch-Site for all that browsers show."""

    PAGE = "page"  # GET by a session; links from other sites may open it
    STREAM = "stream"  # GET by a session; server-sent events
    DOWNLOAD = "download"  # GET by a session; a file as an attachment
    ACTION = "action"  # POST of a form by a session with its CSRF token
    UPLOAD = "upload"  # POST by a session with its CSRF token in a header; the handler streams the body
    STATIC = "static"  # GET by anybody; a file of this package
    API = "api"  # a program by its key, without cookie, form or origin; its body is read before the handler
    API_UPLOAD = "api upload"  # the same; the handler streams the body

    @property
    def is_for_programs(self) -> bool:
        return self in (Access.API, Access.API_UPLOAD)

    @property
    def methods(self) -> tuple[str, ...]:
        match self:
            case Access.ACTION | Access.UPLOAD:
                return ("POST",)
            case Access.STREAM:
                return ("GET",)
            case Access.API | Access.API_UPLOAD:
                return ()
        return ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Route:
    """A path such as `/runs/{name}` and the handler of its requests.

    Programs may send any method, so a route for them names its own. Raises: TypeError, without policy or methods.
    """

    path: str
    handler: Handler
    access: Access
    max_bytes: int = MAX_FORM_BYTES  # of a body, with the files in it
    max_files: int = 0
    methods: tuple[str, ...] = ()  # those of the access, where none are named
    _compiled: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.access, Access):
            raise TypeError(f"route {self.path}: access is {self.access!r}, expected one of Access")
        if not (methods := self.methods or self.access.methods):
            raise TypeError(f"route {self.path}: has no methods, expected some")
        object.__setattr__(self, "methods", methods)
        object.__setattr__(self, "_compiled", compile_path(self.path))

    def match(self, path: str) -> Mapping[str, Any] | None:
        """Parameters of a path of this route; None of another path."""
        pattern, _, converters = self._compiled
        if (found := pattern.match(path)) is None:
            return None
        return {name: converters[name].convert(text) for name, text in found.groupdict().items()}


@dataclass(frozen=True, slots=True)
class Link:
    """Entry of the navigation."""

    title: str
    path: str
