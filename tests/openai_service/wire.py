"""What goes over the wire: routes, refusals, pages of lists, and forms with files."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from tests.loopback import Request, Response

Action = Callable[..., Response]


@dataclass(frozen=True)
class Route:
    """A method and a path with <names>, whose values are the action's arguments after the request."""

    method: str
    path: str
    action: Action

    def match(self, method: str, path: str) -> dict[str, str] | None:
        pattern = re.sub(r"<(\w+)>", r"(?P<\1>[^/]+)", self.path)
        found = re.fullmatch(pattern, path) if method == self.method else None
        return found.groupdict() if found else None


class Refused(Exception):
    """An answer that is no success; both flavours write it as `error`."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param

    def response(self, is_azure: bool) -> Response:
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if not is_azure:
            kind = "invalid_request_error" if self.status < 500 else "server_error"
            error |= {"type": kind, "param": self.param}
        return Response(self.status, {"error": error})


def not_found(kind: str, name: str) -> Refused:
    return Refused(404, "resource_not_found", f"No such {kind} object: {name}", "id")


def page(items: Sequence[dict[str, Any]], query: Mapping[str, str], most: int, **more: Any) -> dict[str, Any]:
    """The items behind `after`, `limit` of them."""
    ids = [item["id"] for item in items]
    if (after := query.get("after")) and after not in ids:
        raise Refused(400, "invalid_request", f"after: no object {after!r}", "after")
    start = ids.index(after) + 1 if after else 0
    limit = int(query.get("limit") or most)
    chosen = list(items[start : start + limit])
    return {"object": "list", "data": chosen, "has_more": start + limit < len(items), **more}


def ends(found: dict[str, Any], empty: str | None) -> dict[str, Any]:
    """A page with the ids of its first and last item."""
    data = found["data"]
    return found | {
        "first_id": data[0]["id"] if data else empty,
        "last_id": data[-1]["id"] if data else empty,
    }


@dataclass(frozen=True)
class Field:
    content: bytes
    filename: str | None = None


def form(request: Request) -> dict[str, Field]:
    """The fields of a multipart form."""
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        raise Refused(400, "invalid_request", f"expected multipart/form-data, found {kind!r}")
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + request.body)
    fields = {}
    for part in message.iter_parts():
        disposition = part["content-disposition"].params
        content = part.get_payload(decode=True)
        fields[str(disposition["name"])] = Field(content if isinstance(content, bytes) else b"", part.get_filename())
    return fields


def is_old(query: Mapping[str, str]) -> bool:
    """Whether an Azure api-version of a date is asked for, and not the v1 API."""
    return query.get("api-version", "preview")[:4].isdigit()
