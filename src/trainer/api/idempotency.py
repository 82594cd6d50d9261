"""Requests that are sent twice make one thing: the id of what is made stands on disk before it is made.

A client repeats a request whose answer was lost. With the same Idempotency-Key it gets what the first one made, also
where the server was killed in between.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request

from trainer.api.errors import ApiError
from trainer.api.folders import home_of
from trainer.api.keys import api_settings_of, caller_of
from trainer.runs import flock
from trainer.runs.files import read_record, write_json

HEADER = "idempotency-key"
FORM = re.compile(r"[!-~]{1,255}")


@contextlib.contextmanager
def one_id(request: Request, fingerprint: str, new_id: Callable[[], str]) -> Iterator[str]:
    """The id for what this request makes: a new one, or that of the same request before.

    `fingerprint` tells one request from another: the kind of object and the digest of its content. Inside of the block
    the caller makes the object, unless it is there already; another request with the same key waits for it.

    Raises: ApiError, when the key was sent with another request.
    """
    given = request.headers.getlist(HEADER)
    if not given:
        yield new_id()
        return
    if len(given) != 1 or not FORM.fullmatch(given[0]):
        raise ApiError(400, f"{HEADER}: expected one of up to 255 visible ASCII characters", "invalid_value")
    path = _path(request, given[0])
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = flock.wait_for(path.with_suffix(".lock"))
    try:
        yield _kept_id(path, fingerprint, new_id)
    finally:
        os.close(handle)


def _kept_id(path: Path, fingerprint: str, new_id: Callable[[], str]) -> str:
    if not (record := read_record(path)):
        record = {"fingerprint": fingerprint, "id": new_id()}
        write_json(path, record)
    if record["fingerprint"] != fingerprint:
        raise ApiError(
            409, f"{HEADER}: was sent with another request before, expected a new one", "idempotency_key_reused"
        )
    return str(record["id"])


def _path(request: Request, key: str) -> Path:
    home = home_of(api_settings_of(request).root, caller_of(request).name)
    return home / "once" / f"{sha256(key.encode()).hexdigest()[:40]}.json"
