"""Files in a workspace's blob storage. The SDK's own download misses outputs and its log streaming fails."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.backends.azureml.workspace import credential
from trainer.backends.http import Say, failure_of, found, found_or_none, is_failure, patiently, timeout_seconds
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.storage.blob import ContainerClient


@dataclass(frozen=True, slots=True)
class Blob:
    """A file in storage."""

    name: str
    size: int
    etag: str


class Datastore:
    """A container, read and cleaned below one prefix."""

    def __init__(self, container: "ContainerClient", prefix: str, say: Say) -> None:
        self.container, self.prefix, self.say = container, prefix, say

    def list(self) -> list[Blob]:
        """Every file below the prefix, named from there."""

        def listed() -> list[Blob]:
            found = self.container.list_blobs(name_starts_with=self.prefix)
            return [Blob(blob.name.removeprefix(self.prefix), blob.size, str(blob.etag)) for blob in found]

        return [blob for blob in patiently(listed, "listing the run's files", self.say) if not blob.name.endswith("/")]

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""

        def downloaded() -> bytes:
            return bytes(self.container.download_blob(self.prefix + name).readall())

        return found(downloaded, f"reading {name}", self.say)

    def chunks(self, name: str) -> Iterator[bytes]:
        """A file of any size, piece by piece."""
        yield from self.container.download_blob(self.prefix + name).chunks()

    def delete_all(self) -> int:
        """Remove what is below the prefix; how many files that were."""
        blobs = self.list()
        for blob in blobs:
            patiently(functools.partial(self._delete, self.prefix + blob.name), f"deleting {blob.name}", self.say)
        return len(blobs)

    def _delete(self, name: str) -> None:
        found_or_none(lambda: self.container.delete_blob(name, delete_snapshots="include"))


def open_datastore(client: "MLClient", name: str, prefix: str, say: Say) -> Datastore:
    """The files of a blob datastore below a prefix. Raises: as `container_of`."""
    return Datastore(container_of(client, name, say), prefix, say)


def container_of(client: "MLClient", name: str, say: Say) -> "ContainerClient":
    """A blob datastore of the workspace: with the key that it keeps, or as oneself where it keeps none.

    Raises: ConfigError, for another kind of datastore; BackendError.
    """
    from azure.ai.ml.entities import AzureBlobDatastore
    from azure.storage.blob import ContainerClient

    store = patiently(lambda: client.datastores.get(name), f"reading the datastore {name!r}", say)
    if not isinstance(store, AzureBlobDatastore):
        raise ConfigError(f"azureml.datastore: {name!r} is of type {store.type}, expected blob storage; name another")
    return ContainerClient(
        f"{store.protocol or 'https'}://{store.account_name}.blob.{store.endpoint or 'core.windows.net'}",
        store.container_name,
        credential=_secret(client, name, say) or credential(),
        connection_timeout=timeout_seconds(),
        read_timeout=timeout_seconds(),
    )


def _secret(client: "MLClient", name: str, say: Say) -> str | None:
    """The account key or SAS of the datastore, where it has one and we may see it."""
    try:
        found = patiently(lambda: client.datastores.get(name, include_secrets=True), f"opening {name!r}", say)
    except Exception as error:
        cause = error.__cause__
        if isinstance(cause, Exception) and is_failure(cause) and failure_of(cause).status in (400, 403, 404):
            return None
        raise
    credentials = found.credentials
    secret = getattr(credentials, "account_key", None) or getattr(credentials, "sas_token", None)
    return str(secret) if secret else None
