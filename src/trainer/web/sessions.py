"""Sessions: the token of the printed link, the cookie that it is exchanged for, and the CSRF token of each session.

All three derive from one secret, kept beside the runs for their owner alone. So a tab that stays open is still signed
in after the server was started again, and no list of sessions is stored.
"""

import hmac
import os
import secrets
import stat
from hashlib import sha256
from pathlib import Path

from trainer.errors import ConfigError, file_error
from trainer.runs.files import write_flushed

FOLDER = ".ui"  # hidden, so no run
SECRET = "secret"
SECRET_BYTES = 32


class Sessions:
    """Signs and verifies; every comparison takes the same time for wrong and right values."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.token = self._sign("link")

    def is_token(self, given: str) -> bool:
        return _equal(given, self.token)

    def open(self) -> str:
        """The cookie of a new session."""
        session = secrets.token_urlsafe(12)
        return f"{session}.{self._sign('session', session)}"

    def read(self, cookie: str) -> str | None:
        """The session of a cookie; None where we did not sign it."""
        session, _, signature = cookie.partition(".")
        return session if _equal(signature, self._sign("session", session)) else None

    def csrf(self, session: str) -> str:
        """The token that each change by the session carries."""
        return self._sign("csrf", session)

    def is_csrf(self, session: str, given: str) -> bool:
        return _equal(given, self.csrf(session))

    def _sign(self, *parts: str) -> str:
        return hmac.new(self._secret, "\n".join(parts).encode("utf-8", "surrogatepass"), sha256).hexdigest()


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def find_secret(root: Path) -> bytes:
    """The secret kept in the folder of runs, made where there is none.

    Raises: ConfigError, when it cannot be read or written, or others can read it.
    """
    path = root / FOLDER / SECRET
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
            raise ConfigError(
                f"{path}: others can read or replace it, expected a file of your own with mode 600; remove it, and a "
                "new one is made"
            )
        secret = path.read_bytes()
    except OSError as error:
        raise file_error(error, path) from None
    if len(secret) != SECRET_BYTES:
        raise ConfigError(
            f"{path}: holds {len(secret)} bytes, expected {SECRET_BYTES}; remove it, and a new one is made"
        )
    return secret


def _make(path: Path) -> None:
    """Write a new secret under another name and link it into place: of two servers, one wins, and both read it."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    before = os.umask(0o177)
    try:
        write_flushed(beside, secrets.token_bytes(SECRET_BYTES))
    finally:
        os.umask(before)
    try:
        os.link(beside, path)
    except FileExistsError:
        pass
    finally:
        beside.unlink(missing_ok=True)
