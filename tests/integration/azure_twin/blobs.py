"""Blob storage: azurite, the storage emulator from npm, behind a door that can fail on demand."""

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import quote, urlencode

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import (
    BlobSasPermissions,
    BlobServiceClient,
    ContainerSasPermissions,
    ContentSettings,
    generate_blob_sas,
    generate_container_sas,
)

from tests.environments import INSTALL_SECONDS, cache, make_once
from tests.guard import mark
from tests.integration.azure_twin.world import ACCOUNT, ACCOUNT_KEY, BLOB_HOST
from tests.loopback import HOST, Request, Response
from tests.proxy import Authority
from tests.waiting import installed, until

VERSION = "3.35.0"  # the newest that runs on node 20
START_SECONDS = 60
DROPPED = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host", "accept-encoding"})


class Missing(Exception):
    """What the twin needs is not on this machine."""


def azurite() -> Path:
    """Azurite's program, installed once. Raises: Missing."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise Missing(f"{program} is not installed, and azurite (the storage emulator) needs it")

    def build(folder: Path) -> None:
        folder.mkdir()
        command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", f"azurite@{VERSION}"]
        if (problem := installed(command, f"azurite {VERSION}, once", INSTALL_SECONDS, folder)) is not None:
            raise Missing(f"azurite {VERSION} cannot be installed with npm: {problem}")

    folder = make_once(cache() / f"azurite-{VERSION}", build)
    return folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"


@contextmanager
def storage(authority: Authority, folder: Path) -> Iterator["Blobs"]:
    """A storage account of its own, until the block is left."""
    program = azurite()
    certificate, key = authority.files(BLOB_HOST)
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
    options = ["--blobHost", HOST, "--blobPort", str(port), "--cert", str(certificate), "--key", str(key)]
    options += ["--oauth", "basic", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    environment = {
        "PATH": os.environ["PATH"],
        "AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}",
        "HOME": str(folder),
    } | mark()
    with (folder / "azurite.log").open("wb") as log:
        process = subprocess.Popen(["node", program, *options], env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        _wait(port, process, folder / "azurite.log")
        yield Blobs(port, authority)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    def answers() -> bool:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            return False
        return True

    until(answers, "starting azurite", START_SECONDS)


class Blobs:
    """The account as the twin's own parts use it, past the door."""

    def __init__(self, port: int, authority: Authority) -> None:
        self.port, self.key, self.context = port, ACCOUNT_KEY, ssl.create_default_context(cafile=str(authority.bundle))
        url = f"https://{HOST}:{port}/{ACCOUNT}"
        self.client = BlobServiceClient(url, credential=ACCOUNT_KEY, connection_verify=str(authority.bundle))
        self._connection: HTTPSConnection | None = None

    def __call__(self, request: Request) -> Response:
        """The door: hands a request on as it came."""
        query = urlencode(dict(request.query), quote_via=quote)
        target = quote(request.path, safe="/~!$&'()*+,;=:@") + (f"?{query}" if query else "")
        headers = {name: value for name, value in request.headers.items() if name not in DROPPED}
        for last in (False, True):
            if self._connection is None:
                self._connection = HTTPSConnection(HOST, self.port, timeout=60, context=self.context)
            try:
                self._connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
                for name, value in {"host": BLOB_HOST, "content-length": str(len(request.body)), **headers}.items():
                    self._connection.putheader(name, value)
                self._connection.endheaders(request.body or None)
                answer = self._connection.getresponse()
                own = {name.title(): value for name, value in answer.getheaders() if name.lower() not in DROPPED}
                if request.method == "HEAD" and (length := answer.getheader("content-length")):
                    own["Content-Length"] = length
                return Response(answer.status, answer.read(), own)
            except (OSError, HTTPException):
                self._connection = None
                if last:
                    raise
        raise AssertionError

    def make_container(self, name: str) -> None:
        try:
            self.client.create_container(name)
        except ResourceExistsError:
            return

    def signature(self, container: str) -> str:
        """A shared access signature for a container."""
        until = datetime.now(UTC) + timedelta(days=1)
        rights = ContainerSasPermissions(read=True, write=True, list=True, add=True, create=True, delete=True)
        return generate_container_sas(ACCOUNT, container, account_key=ACCOUNT_KEY, permission=rights, expiry=until)

    def readable(self, container: str, name: str) -> str:
        """The address of a blob with a signature to read it."""
        until = datetime.now(UTC) + timedelta(days=1)
        rights = BlobSasPermissions(read=True)
        signed = generate_blob_sas(ACCOUNT, container, name, account_key=ACCOUNT_KEY, permission=rights, expiry=until)
        return f"https://{BLOB_HOST}/{container}/{quote(name)}?{signed}"

    def names(self, container: str, prefix: str = "") -> list[str]:
        return [blob.name for blob in self.client.get_container_client(container).list_blobs(prefix or None)]

    def read(self, container: str, name: str) -> bytes:
        return self.client.get_blob_client(container, name).download_blob().readall()

    def write(self, container: str, name: str, data: bytes, kind: str = "application/octet-stream") -> None:
        settings = ContentSettings(content_type=kind)
        self.client.get_blob_client(container, name).upload_blob(data, overwrite=True, content_settings=settings)

    def delete(self, container: str, name: str) -> None:
        self.client.get_blob_client(container, name).delete_blob()

    def download(self, container: str, prefix: str, folder: Path) -> None:
        """Every blob below a prefix, as files; a prefix that is one blob becomes one file of its name."""
        for name in self.names(container, prefix):
            if name != prefix and not name.startswith(prefix.rstrip("/") + "/") and prefix:
                continue
            rest = name.removeprefix(prefix).strip("/") or name.rsplit("/", 1)[-1]
            (folder / rest).parent.mkdir(parents=True, exist_ok=True)
            (folder / rest).write_bytes(self.read(container, name))
