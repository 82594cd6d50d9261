"""Data assets of a workspace, fetched to this machine: azureml:NAME:VERSION, azureml:NAME@latest, or the full id."""

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from trainer.backends.azureml.datastore import container_of
from trainer.backends.azureml.workspace import Place, connect, find_place
from trainer.backends.http import Say, found
from trainer.config.azureml import AzureMLConfig
from trainer.data.fetch.blobs import fetch_blob
from trainer.data.fetch.limits import Limited
from trainer.data.fetch.store import Download, Fetched
from trainer.data.quoting import printable
from trainer.errors import ConfigError, DataError

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

FORM = "azureml:NAME:VERSION or azureml:NAME@latest"
_SHORT = re.compile(r"azureml:(?P<name>[A-Za-z0-9][\w.-]*)(?::(?P<version>[\w.-]+)|@latest)")
_FULL = re.compile(
    r"azureml:/+subscriptions/(?P<subscription>[^/]+)/resource[gG]roups/(?P<resource_group>[^/]+)"
    r"(?:/providers/Microsoft.MachineLearningServices)?/workspaces/(?P<workspace>[^/]+)"
    r"/data/(?P<name>[\w.-]+)/versions/(?P<version>[\w.-]+)"
)
_STORED = re.compile(r"azureml:/+(?:subscriptions/.+/)?datastores/(?P<datastore>[^/]+)/paths/(?P<path>.+)")


def download_of(address: str, settings: AzureMLConfig, say: Say) -> Download:
    """Fetches a data asset of one file; its revision is workspace and version. Raises: ConfigError."""
    match = _SHORT.fullmatch(address) or _FULL.fullmatch(address)
    if match is None:
        raise ConfigError(f"{printable(address)}: names no data asset, expected {FORM}; correct it")
    wanted = match.groupdict()

    def download(revision: str | None, target: Limited) -> Fetched | None:
        full = wanted.get("workspace")
        place = Place(wanted["subscription"], wanted["resource_group"], wanted["workspace"]) if full else None
        place = place or find_place(settings)
        version = wanted["version"]
        if version is not None and _revision(place, version) == revision:
            return None
        client = connect(place)
        asset = _asset(client, wanted["name"], version, address, say)
        if (newest := _revision(place, asset.version)) == revision:
            return None
        datastore, path = _file_of(asset, address)
        fetched = fetch_blob(container_of(client, datastore, say), path, address, None, target)
        assert fetched is not None, "without a revision there is nothing to compare with"
        return Fetched(PurePosixPath(path).name, newest)

    return download


def _revision(place: Place, version: object) -> str:
    """A version that no other workspace has: theirs may have assets of the same name."""
    return f"{place.arm_id.lower()}:{version}"


def _asset(client: "MLClient", name: str, version: str | None, address: str, say: Say) -> Any:
    """The asset as the workspace describes it. Raises: DataError, where there is none; BackendError."""
    newest = {"label": "latest"} if version is None else {"version": version}
    asset = found(lambda: client.data.get(name, **newest), f"reading the data asset {name!r}", say)
    if asset is None:
        raise DataError(
            f"{printable(address)}: the workspace {client.workspace_name!r} has no such data asset, expected {FORM}; "
            f"list them with: az ml data list -w {client.workspace_name}"
        )
    return asset


def _file_of(asset: Any, address: str) -> tuple[str, str]:
    """Datastore and path of the asset's file. Raises: DataError, for another kind of asset."""
    kind = str(getattr(asset.type, "value", asset.type))
    if kind != "uri_file":
        raise DataError(
            f"{printable(address)}: is of type {kind}, expected uri_file, a file of rows; register the file itself"
        )
    stored = _STORED.fullmatch(str(asset.path))
    if stored is None:
        raise DataError(
            f"{printable(address)}: lies outside of the workspace's datastores, expected a file in one; name its own "
            "address"
        )
    return stored["datastore"], stored["path"]
