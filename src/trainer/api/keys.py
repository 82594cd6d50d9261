"""Callers: a request is from whoever has the key that it carries. Keys are kept as digests alone."""

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from starlette.requests import Request

from trainer.api.errors import ApiError

if TYPE_CHECKING:
    from trainer.api.settings import ApiSettings

AZURE_HEADER = "api-key"
OWNER = r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}"  # the name of a folder, and a part of the names of models
VISIBLE = re.compile(r"[!-~]{1,500}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Owner of files, jobs and models, with the limits of its key; None is no limit."""

    name: str
    max_jobs: int | None = None  # that wait or run at a time
    max_tokens: int | None = None  # trained, by all jobs together
    max_bytes: int | None = None  # of files and uploads


@dataclass(frozen=True, slots=True)
class Key:
    """A caller and the SHA-256 of its key, in hexadecimal."""

    caller: Caller
    digest: str


def digest_of(key: str) -> str:
    """A key as the server's settings hold it."""
    return sha256(key.encode()).hexdigest()


def find_caller(keys: Iterable[Key], request: Request) -> Caller:
    """The caller of a request. Every key is compared, so that an answer takes the same time whichever it is.

    Raises: ApiError.
    """
    given, found = digest_of(_key_of(request)), None
    for key in keys:
        if hmac.compare_digest(given, key.digest):
            found = key.caller
    if found is None:
        raise _wrong("Incorrect API key provided")
    return found


def _key_of(request: Request) -> str:
    """The key of `Authorization: Bearer KEY`, or of Azure's header; of both, where they are the same."""
    given = list(request.headers.getlist(AZURE_HEADER))
    for header in request.headers.getlist("authorization"):
        scheme, _, key = header.strip().partition(" ")
        if scheme.lower() != "bearer":
            raise _wrong("the Authorization header is of another scheme")
        given.append(key.strip())
    if not given:
        raise _wrong("You didn't provide an API key")
    if len(set(given)) != 1 or not VISIBLE.fullmatch(given[0]):
        raise _wrong("Incorrect API key provided")
    return given[0]


def _wrong(found: str) -> ApiError:
    return ApiError(401, f"{found}; send it as `Authorization: Bearer KEY` or as `api-key: KEY`", "invalid_api_key")


def caller_of(request: Request) -> Caller:
    """The caller of a request that has entered."""
    caller: Caller = request.scope["caller"]
    return caller


def api_settings_of(request: Request) -> "ApiSettings":
    """The settings of the server that answers a request."""
    settings: ApiSettings = request.scope["api"]
    return settings
