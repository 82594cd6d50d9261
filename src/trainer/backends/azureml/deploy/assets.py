"""Versions of models, environments, data and code, and the files behind them: found and deleted.

The SDK can archive them only; Azure's resource manager deletes them.
"""

import re
from typing import TYPE_CHECKING, Any

from trainer.backends.arm import ARM, ask
from trainer.backends.azureml.deploy.service import found
from trainer.backends.azureml.submit import found_or_none
from trainer.backends.azureml.workspace import Place, credential
from trainer.backends.http import Say
from trainer.errors import ConfigError
from trainer.runs import Run, list_runs
from trainer.runs.ledger import Entry, Ledger

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

API_VERSION = "2023-04-01"
PLURALS = {"model": "models", "environment": "environments", "data": "data", "code": "codes"}
UPLOADED = "LocalUpload/"  # where the SDK puts what it uploads, below a hash of the content
IN_DATASTORE = re.compile(r"azureml://.*?datastores/(?P<store>[^/]+)/paths/(?P<path>.+)")
IN_CONTAINER = re.compile(r"https://[^/]+/[^/]+/(?P<path>.+)")


def delete_version(place: Place, entry: Entry) -> None:
    """One DELETE. Raises: ConfigError, when its id is not known."""
    _ask("DELETE", place, entry)


def version_is_there(place: Place, entry: Entry) -> bool:
    """Whether the service knows the version. Raises: ConfigError, when its id is not known."""
    return found_or_none(lambda: _ask("GET", place, entry)) is not None


def _ask(method: str, place: Place, entry: Entry) -> bytes:
    return ask(method, f"{ARM}{_id(place, entry)}?api-version={API_VERSION}", credential())


def files_of(ml: "MLClient", entry: Entry, say: Say) -> tuple[str, str] | None:
    """Datastore and prefix of the files that were uploaded for it; None where the service keeps them itself."""
    name, _, version = entry.thing.key.rpartition(":")
    match entry.thing.kind:
        case "model":
            known: Any = found(lambda: ml.models.get(name, version), f"the model {entry.thing.key}", say)
            return _place(known.path) if known is not None else None
        case "data":
            known = found(lambda: ml.data.get(name, version), f"the data {entry.thing.key}", say)
            return _place(known.path) if known is not None else None
        case "environment":
            known = found(lambda: ml.environments.get(name, version), f"the environment {entry.thing.key}", say)
            return _place(known.build.path) if known is not None and known.build is not None else None
    return None


def used_by_another(run: Run, entry: Entry) -> str | None:
    """Another run beside this one whose ledger holds the same thing: what is named by its content is shared."""
    mine = (entry.thing.kind, entry.thing.key, entry.thing.place)
    for other in list_runs(run.path.parent):
        if other.path.resolve() != run.path.resolve():
            for theirs in Ledger(other.path).open():
                if (theirs.thing.kind, theirs.thing.key, theirs.thing.place) == mine:
                    return other.name
    return None


def _id(place: Place, entry: Entry) -> str:
    known = str(entry.facts.get("id") or "").removeprefix("azureml:")
    if known.startswith("/subscriptions/"):
        return known
    name, _, version = entry.thing.key.rpartition(":")
    if not name:
        raise ConfigError("its id is not known, expected one of an earlier answer; look for it in the studio")
    return f"{place.arm_id}/{PLURALS[entry.thing.kind]}/{name}/versions/{version}"


def _place(path: object) -> tuple[str, str] | None:
    """Of files that the SDK has uploaded: never of a folder that someone else fills."""
    text = str(path)
    if in_store := IN_DATASTORE.fullmatch(text):
        store, inner = in_store["store"], in_store["path"]
    elif in_container := IN_CONTAINER.fullmatch(text):
        store, inner = "workspaceblobstore", in_container["path"]
    else:
        return None
    parts = inner.split("/")
    return (store, "/".join(parts[:2]) + "/") if inner.startswith(UPLOADED) and len(parts) > 2 else None
