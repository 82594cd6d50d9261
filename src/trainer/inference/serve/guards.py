"""Access: the address to listen on, the right key, and a Host header that this server answers to."""

import hmac
import os
import re
import secrets
from collections.abc import Iterable

from trainer.errors import ConfigError
from trainer.inference.serve.refusals import Refusal

KEY_VARIABLE = "TRAINER_API_KEY"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  # compared with, not bound to


def api_key() -> tuple[str, bool]:
    """The key from the environment, or a new one; and whether it is new.

    Raises: ConfigError, when the one in the environment could not be sent in a header.
    """
    if (given := os.environ.get(KEY_VARIABLE)) is None:
        return secrets.token_urlsafe(24), True
    if not re.fullmatch(r"[!-~]{8,}", given):
        raise ConfigError(
            f"{KEY_VARIABLE}: is unfit as a key, expected at least 8 visible ASCII characters without spaces; "
            "unset it to have one made"
        )
    return given, False


def check_key(header: str | None, key: str) -> None:
    """Raises: Refusal, unless the Authorization header carries the key; wrong ones take as long as right ones."""
    scheme, _, given = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), key.encode()):
        raise Refusal(401, "the API key is missing or wrong; send it as: Authorization: Bearer KEY", "invalid_api_key")


def allowed_hosts(host: str, port: int, names: Iterable[str]) -> frozenset[str]:
    """Accepted Host headers. Raises: ConfigError, when the address is any and no name is given.

    A page on the web can have its own name point to this machine; it cannot choose the header.
    """
    names = tuple(names)
    if host in ANY_ADDRESS and not names:
        raise ConfigError(
            f"--host: {host!r} is every address of this machine, expected --allowed-host with the name that clients "
            "use; without TLS put a proxy in front"
        )
    own = LOOPBACK if host in LOOPBACK or host == "::1" else () if host in ANY_ADDRESS else (host,)
    return frozenset(f"{name.lower()}:{port}" for name in (*own, *names)) | frozenset(
        name.lower() for name in (*own, *names) if port in (80, 443)
    )


def check_host(header: str | None, allowed: frozenset[str]) -> None:
    """Raises: Refusal, when the request was meant for another host."""
    if header is None or header.lower() not in allowed:
        raise Refusal(421, "this server does not answer to that host name", "unknown_host")
