"""Blobs of Azure's storage: az://CONTAINER/PATH, or az://CONTAINER@ACCOUNT/PATH.

The credential comes from the environment, in the variables of `az`: a connection string, a SAS or a key; else from the
SDK's own chain, as everywhere.
"""

import fnmatch
import glob
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from trainer.data.fetch.limits import Limited
from trainer.data.fetch.store import Download, Fetched
from trainer.data.quoting import printable
from trainer.errors import ConfigError, DataError, quoted
from trainer.extras import need

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

ACCOUNT = "AZURE_STORAGE_ACCOUNT"
CONNECTION, SAS, KEY = "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_KEY"
FORM = "az://CONTAINER/PATH or az://CONTAINER@ACCOUNT/PATH"
_SCOPE = "https://storage.azure.com/.default"
ROLE = "Storage Blob Data Reader"
_NAME = re.compile(r"[a-z0-9]{3,24}")
_HOST = re.compile(
    r"[a-z0-9-]{3,40}(?:\.z\d{1,2})?\.blob\."
    r"(?:core\.windows\.net|core\.usgovcloudapi\.net|core\.chinacloudapi\.cn|storage\.azure\.net)"
)


def download_of(address: str) -> Download:
    """Fetches a blob; its revision is the ETag."""
    container, path = _parts(address)

    def download(revision: str | None, target: Limited) -> Fetched | None:
        with connected(container, address) as client:
            return fetch_blob(client, path, address, revision, target)

    return download


def matching_blobs(address: str) -> list[str]:
    """The blobs that a pattern matches, by name; an address that is none as it is.

    Raises: DataError, where it matches none; ConfigError.
    """
    if not glob.has_magic(address):
        return [address]
    container, pattern = _parts(address)
    before = pattern[: min(pattern.index(mark) for mark in "*?[" if mark in pattern)]
    with connected(container, address) as client, _told(address):
        names = sorted(blob.name for blob in client.list_blobs(name_starts_with=before))
    found = [name for name in names if fnmatch.fnmatchcase(name, pattern) and name.count("/") == pattern.count("/")]
    if not found:
        raise DataError(f"{printable(address)}: no blob matches the pattern, expected one at least; check it")
    return [address.removesuffix(pattern) + name for name in found]


def fetch_blob(
    client: "ContainerClient", path: str, address: str, revision: str | None, target: Limited
) -> Fetched | None:
    """Write a blob to `target`, unless it still is `revision`. Raises: DataError, ConfigError."""
    from azure.core import MatchConditions

    with _told(address), client.get_blob_client(path) as blob:
        properties = blob.get_blob_properties()
        if properties.etag == revision:
            return None
        target.expect(properties.size)
        stream = blob.download_blob(etag=properties.etag, match_condition=MatchConditions.IfNotModified)
        for piece in stream.chunks():
            target.write(piece)
    if target.tell() != properties.size:
        raise DataError(
            f"{printable(address)}: ended after {target.tell():,} of {properties.size:,} bytes, expected all of them; "
            "nothing was kept, try again"
        )
    return Fetched(path, properties.etag)


def _parts(address: str) -> tuple[str, str]:
    container, slash, path = address.partition("://")[2].partition("/")
    if not container.partition("@")[0] or not slash or not path or path.endswith("/"):
        raise ConfigError(f"{printable(address)}: names no blob, expected {FORM}; correct it")
    if "?" in path:
        raise ConfigError(
            f"{printable(address.partition('?')[0])}: the address has a query, expected {FORM}, as configs "
            f"and runs keep it; put a SAS into {SAS}"
        )
    return container, path


@contextmanager
def connected(container: str, address: str) -> "Iterator[ContainerClient]":
    """A client of CONTAINER or CONTAINER@ACCOUNT, with the environment's credential. Raises: ConfigError."""
    need("reading blobs", "azure.storage.blob", "azure.identity", extra="sources")
    from azure.storage.blob import ContainerClient

    name, _, account = container.partition("@")
    options: dict[str, Any] = {"retry_total": 3, "connection_timeout": 30, "read_timeout": 60}
    if not account and (text := os.environ.get(CONNECTION)):
        with _told(address):
            client = ContainerClient.from_connection_string(text, name, **options)
        with client:
            yield client
        return
    own = os.environ.get(ACCOUNT, "")
    account = account or own
    if not account:
        raise ConfigError(
            f"{printable(address)}: names no storage account, expected {FORM}; write the account, or set {ACCOUNT}"
        )
    if account != own and not _NAME.fullmatch(account) and not _HOST.fullmatch(account):
        raise ConfigError(
            f"{printable(address)}: names {printable(account)}, which is no storage account of Azure, expected one, as "
            f"a SAS or a token is sent there; correct the account, or set {ACCOUNT} to a server of your own"
        )
    host = account if "." in account else f"{account}.blob.core.windows.net"
    with _told(address):
        credential = _credential()
    with ContainerClient(f"https://{host}", name, credential=credential, **options) as client:
        yield client


def _credential() -> Any:
    if given := os.environ.get(SAS) or os.environ.get(KEY):
        return given
    from azure.identity import DefaultAzureCredential

    logging.getLogger("azure.identity").setLevel(logging.ERROR)  # `_told` says it in a line
    credential = DefaultAzureCredential()
    credential.get_token(_SCOPE)  # once: the client would try again, and take minutes to say that nobody is signed in
    return credential


@contextmanager
def _told(address: str) -> Iterator[None]:
    """The service's refusals in words; no message shows a credential."""
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    try:
        yield
    except (AzureError, ValueError) as error:
        if isinstance(error, DataError | ConfigError):
            raise
        place = printable(address)
        code = str(getattr(error, "error_code", "") or "")
        if isinstance(error, HttpResponseError) and error.status_code is not None:
            raise DataError(f"{place}: {_refusal(error.status_code, code)}") from None
        if isinstance(error, ClientAuthenticationError):
            raise DataError(
                f"{place}: nobody is signed in to Azure, expected a SAS in {SAS} or an identity; run: az login"
            ) from None
        if isinstance(error, ValueError):
            raise ConfigError(
                f"{place}: the storage's credential cannot be read, expected one of az; correct {SAS}, "
                f"{KEY} or {CONNECTION}"
            ) from None
        found = quoted(" ".join(str(error).split()), 160)[1:-1]
        raise DataError(f"{place}: the storage cannot be reached ({found}), expected an answer; try again") from None


def _refusal(status: int, code: str) -> str:
    shown = f"the storage answered {status}{f' {code}' if code else ''}"
    match status:
        case 404:
            return f"does not exist ({shown}), expected a blob; correct the address"
        case 401 | 403 if ended := _ended_sas():
            return f"may not be read, as the SAS in {SAS} ended at {ended} ({shown}), expected one that holds; renew it"
        case 401 | 403 if os.environ.get(SAS):
            return f"may not be read with the SAS in {SAS} ({shown}), expected one that may read it; renew it"
        case 401 | 403:
            return f"may not be read ({shown}), expected an identity with the role {ROLE}; ask the account's owner"
        case 412:
            return "was changed while it was read, expected it to rest; nothing was kept, try again"
    return f"cannot be fetched ({shown}), expected the blob; try again"


def _ended_sas() -> str:
    """The end of the SAS in the environment, where that is past; empty else."""
    found = parse_qs(os.environ.get(SAS, "").lstrip("?")).get("se", [""])[0]
    try:
        end = datetime.fromisoformat(unquote(found))
    except ValueError:
        return ""
    return end.isoformat(sep=" ") if end.replace(tzinfo=end.tzinfo or UTC) < datetime.now(UTC) else ""
