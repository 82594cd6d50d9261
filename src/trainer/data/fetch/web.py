"""Files of web servers, over https alone: in pieces where a connection ends early, and whole or not at all."""

import http.client
import ipaddress
import re
import socket
import time
import urllib.error
import urllib.request
from typing import IO, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from trainer import __version__
from trainer.certificates import use_certificates
from trainer.data.fetch.limits import Limited
from trainer.data.fetch.store import Download, Fetched
from trainer.data.quoting import printable
from trainer.errors import ConfigError, DataError, quoted

MAX_REDIRECTS = 5
ATTEMPTS = 5
FIRST_WAIT_SECONDS, MOST_WAIT_SECONDS = 0.5, 20.0
TIMEOUT_SECONDS = 60.0
_PIECE_BYTES = 1 << 20
_TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})
# Parameters of a query that are keys, or sign an address: whoever reads the address can do what it allows.
_SECRETS = frozenset(
    {"sig", "signature", "x-amz-signature", "x-goog-signature", "token", "access_token", "api_key", "apikey", "key",
     "password", "secret", "sas", "api-key", "subscription-key", "ocp-apim-subscription-key", "code"}
)  # fmt: skip


class _Broken(Exception):
    """A transfer that ended early, for the reason in the text; it may be tried again."""


def _parts(address: str) -> SplitResult:
    """The address in its parts. Raises: ConfigError, where it names no server; it shows no query."""
    try:
        parts = urlsplit(address)
        if parts.hostname and parts.port != 0:
            return parts
    except ValueError:  # brackets that do not close, a port that is none
        pass
    place = printable(re.sub(r"(?<=//)[^/]*@", "", address.partition("?")[0]))
    raise ConfigError(f"{place}: names no server, expected https://HOST/PATH; correct it")


def secret_of(query: str) -> str | None:
    """The name of a parameter that is a key or a signature."""
    return next((name for name, _ in parse_qsl(query) if name.lower() in _SECRETS), None)


def refuse_secrets(address: str) -> None:
    """Raises: ConfigError, for an address that holds a password or a signature, of which it shows nothing."""
    parts = _parts(address)
    place = f"{parts.scheme}://{parts.hostname}{parts.path}"
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"{printable(place)}: the address holds a user or a password, expected none, as configs and runs keep it; "
            "remove it"
        )
    if secret := secret_of(parts.query):
        raise ConfigError(
            f"{printable(place)}: the address holds the secret {secret!r}, expected none, as configs and runs keep it; "
            "for a blob of Azure write az://CONTAINER@ACCOUNT/PATH, with the SAS in AZURE_STORAGE_SAS_TOKEN"
        )


def download_of(address: str) -> Download:
    """Fetches a file from a web server; its revision is the ETag. Raises: ConfigError, for an address with a secret."""
    refuse_secrets(address)
    parts = _parts(address)

    def download(revision: str | None, target: Limited) -> Fetched | None:
        use_certificates()
        wait, etag = FIRST_WAIT_SECONDS, None
        for attempt in range(ATTEMPTS):
            try:
                answered = _transfer(address, revision, target, etag)
                if answered is None or answered.is_whole:
                    name = unquote(parts.path.rpartition("/")[2]) or "data.jsonl"
                    return None if answered is None else Fetched(name, answered.etag)
                etag, reason = answered.etag, answered.reason
            except _Broken as broken:
                reason = str(broken)
            if attempt < ATTEMPTS - 1:
                time.sleep(wait)
                wait = min(2 * wait, MOST_WAIT_SECONDS)
        raise DataError(
            f"{printable(address)}: cannot be fetched ({reason}), expected a whole file; nothing was kept, try again"
        )

    return download


class _Answer:
    """The part of a file that has arrived, and the reason why no more has."""

    def __init__(self, etag: str | None, is_whole: bool, reason: str = "") -> None:
        self.etag, self.is_whole, self.reason = etag, is_whole, reason


def _transfer(address: str, revision: str | None, target: Limited, etag: str | None) -> _Answer | None:
    """One request; None where the file still is `revision`. It continues what `target` holds of the file `etag`."""
    begun = target.tell() if etag and not etag.startswith("W/") else 0
    headers = {"User-Agent": f"azure-llm-trainer/{__version__}", "Accept-Encoding": "identity"}
    if begun:
        headers |= {"Range": f"bytes={begun}-", "If-Range": etag or ""}
    elif revision:
        headers["If-None-Match"] = revision
    request = urllib.request.Request(address, headers=headers)  # noqa: S310  # the opener knows https alone
    try:
        with _opener(address).open(request, timeout=TIMEOUT_SECONDS) as response:
            return _receive(response, begun, target)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 304 and revision and not begun:
            return None
        if error.code in _TEMPORARY:
            raise _Broken(f"the server answered {error.code}") from None
        raise DataError(f"{printable(address)}: {_refusal(error.code)}") from None
    except urllib.error.URLError as error:
        raise _Broken(quoted(str(error.reason), 200)[1:-1]) from None
    except (http.client.HTTPException, OSError) as error:
        raise _Broken(quoted(str(error) or type(error).__name__, 200)[1:-1]) from None


def _receive(response: Any, begun: int, target: Limited) -> _Answer:
    etag, length = response.headers.get("ETag"), response.headers.get("Content-Length")
    continues = response.status == 206 and str(response.headers.get("Content-Range", "")).startswith(f"bytes {begun}-")
    if not continues:
        if response.status == 206:
            raise _Broken("the server sent another part than was asked for")
        target.restart()
        begun = 0
    total = begun + int(length) if length and length.isdecimal() else None
    if total is not None:
        target.expect(total)
    try:
        while piece := response.read(_PIECE_BYTES):
            target.write(piece)
        broken = "the connection ended"
    except http.client.IncompleteRead as error:
        target.write(error.partial)
        broken = "the connection ended"
    except OSError as error:
        broken = str(error.strerror or error)
    else:
        if total is None or target.tell() == total:
            return _Answer(etag, is_whole=True)
    return _Answer(etag, False, f"{broken} after {target.tell():,} of {total or 0:,} bytes")


def _refusal(status: int) -> str:
    match status:
        case 404 | 410:
            return f"does not exist (the server answered {status}), expected a file; correct the address"
        case 401 | 403:
            return (
                f"may not be read (the server answered {status}), expected a file that needs no sign-in; for a blob of "
                "Azure write az://CONTAINER@ACCOUNT/PATH"
            )
        case 301 | 302 | 303 | 307 | 308:
            return (
                f"leads in a circle, or to no address of https:// (the server answered {status}), expected a file; "
                "name the file's own address"
            )
    return f"cannot be fetched (the server answered {status}), expected 200 and the file; correct the address"


def _opener(address: str) -> urllib.request.OpenerDirector:
    """An opener of https and nothing else: neither http, nor files, nor FTP, also behind a redirect."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(address),
    ):
        opener.add_handler(handler)
    return opener


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects from https to https, and from the public network to nowhere else."""

    max_redirections = MAX_REDIRECTS

    def __init__(self, address: str) -> None:
        self.address = address

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        there = urlsplit(newurl)
        if there.scheme != "https":
            raise DataError(
                f"{printable(self.address)}: leads to an address of {printable(there.scheme)}://, expected https:// "
                "all the way; name the file's own address"
            )
        if _is_internal(there.hostname or "") and not _is_internal(urlsplit(self.address).hostname or ""):
            raise DataError(
                f"{printable(self.address)}: leads into a private network ({printable(str(there.hostname))}), expected "
                "a public server; name the file's own address"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: http.client.HTTPMessage) -> Any:
        if len(getattr(req, "redirect_dict", {})) >= self.max_redirections:
            raise DataError(
                f"{printable(self.address)}: leads on more than {MAX_REDIRECTS} times, expected a file; name the "
                "file's own address"
            )
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _is_internal(host: str) -> bool:
    """True where a host is of this machine or a private network; a name that nobody knows here is a proxy's matter."""
    try:
        found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(not ipaddress.ip_address(place[4][0]).is_global for place in found)
