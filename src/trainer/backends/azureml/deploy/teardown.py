"""Delete what a run has left in a workspace: what bills first, then, if asked to, everything else."""

import contextlib
import io
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from trainer.backends.arm import ARM, ask
from trainer.backends.azureml.datastore import open_datastore
from trainer.backends.azureml.deploy.deployment import wait_until_ended
from trainer.backends.azureml.follow import is_final
from trainer.backends.azureml.job import BACKEND
from trainer.backends.azureml.workspace import Place, connect, credential, word_of
from trainer.backends.http import Say, found, found_or_none, patiently
from trainer.backends.idempotent import delete_once
from trainer.errors import BackendError, ConfigError
from trainer.runs import Run, list_runs
from trainer.runs.ledger import Entry, Ledger, Thing
from trainer.runs.lock import locked

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

DEPLOYED = ("deployment", "endpoint")
# Jobs are a run's record; they bill nothing once they have ended.
THE_REST = ("job", "model", "environment", "data", "code")
VERSIONS_API = "2023-04-01"
PLURALS = {"model": "models", "environment": "environments", "data": "data", "code": "codes"}
UPLOADED = "LocalUpload/"  # where the SDK puts what it uploads, below a hash of the content
IN_DATASTORE = re.compile(r"azureml://.*?datastores/(?P<store>[^/]+)/paths/(?P<path>.+)")
IN_CONTAINER = re.compile(r"https://[^/]+/[^/]+/(?P<path>.+)")


def teardown(run: Run, everything: bool, say: Say) -> None:
    """Delete deployments and endpoints, and with `everything` models, data and code. Repeatable.

    Raises: BackendError, after everything else was tried, naming what could not be deleted and the command for it.
    """
    ledger = Ledger(run.path)
    with locked(run.path, say), contextlib.redirect_stdout(io.StringIO()):  # the SDK prints dots
        left = []
        for kind in (*DEPLOYED, *THE_REST) if everything else DEPLOYED:
            for entry in reversed(ledger.open()):
                if entry.thing.backend == BACKEND and entry.thing.kind == kind:
                    left += _removed(_Remover(run, ledger, entry, say))
        run.event("torn down" if not left else f"torn down but for {len(left)}", kind="teardown", left=left)
    kept = [entry for entry in ledger.open() if entry.thing.backend == BACKEND]
    for entry in kept:
        say(f"remains: {entry.thing.kind} {entry.thing.key}" + (f"  {entry.thing.bills}" if entry.thing.bills else ""))
    if kept and not everything:
        say(f"remove that too: trainer teardown {run.path} --everything")
    if left:
        raise BackendError(*left)


def remove_deployment(run: Run, deployment: Thing, say: Say) -> None:
    """Delete one deployment of the run. Raises: BackendError, with the command that deletes it."""
    ledger = Ledger(run.path)
    with locked(run.path, say), contextlib.redirect_stdout(io.StringIO()):
        entry = ledger.find(*deployment.identity)
        left = _removed(_Remover(run, ledger, entry, say)) if entry is not None and entry.is_open else []
    if left:
        raise BackendError(*left)


def _removed(remover: "_Remover") -> list[str]:
    """Remains in words, empty where everything is gone."""
    thing = remover.entry.thing
    try:
        remover.remove()
    except (BackendError, ConfigError) as error:
        hint = f"; delete it: {thing.delete_with}" if thing.delete_with else ""
        return [f"the {thing.kind} {thing.key}: is not deleted: {error}{hint}"]
    return []


class _Remover:
    """Removes one thing of the ledger."""

    def __init__(self, run: Run, ledger: Ledger, entry: Entry, say: Say) -> None:
        self.run, self.ledger, self.entry, self.say = run, ledger, entry, say
        self.place = Place.of_arm_id(entry.thing.place)
        self.ml: MLClient = connect(self.place)

    def remove(self) -> None:
        """Raises: BackendError, ConfigError."""
        key = self.entry.thing.key
        match self.entry.thing.kind:
            case "deployment":
                self._deployment(*key.split("/"))
            case "endpoint":
                self._endpoint(key)
            case "model" | "environment" | "data" | "code":
                self._version()
            case "job":
                self._job(key)

    def _once(self, delete: Callable[[], object], get: Callable[[], object] = lambda: None) -> None:
        """Delete it; `get` asks for it afterwards, and finds nothing once it is gone."""
        thing = self.entry.thing
        self.say(f"deleting the {thing.kind} {thing.key}")
        delete_once(self.ledger, thing, delete, self.say, lambda: found_or_none(get) is not None)

    def _deployment(self, endpoint: str, deployment: str) -> None:
        """Azure ML refuses to delete one that has traffic."""
        known = self._known_endpoint(endpoint)
        if known is not None and known.traffic.get(deployment):
            known.traffic = {name: share for name, share in known.traffic.items() if name != deployment}
            others = [name for name, share in known.traffic.items() if share]
            patiently(lambda: self._update(known), f"taking the traffic from {deployment}", self.say)
            wait_until_ended(lambda: self.ml.online_endpoints.get(endpoint), f"the endpoint {endpoint}", self.say)
            if known.traffic and not others:
                self.say(
                    f"the endpoint {endpoint} has no deployment with traffic now; give one all of it: "
                    f'az ml online-endpoint update -n {endpoint} --traffic "NAME=100" {self.place.options}'
                )
        deployments = self.ml.online_deployments
        self._once(
            lambda: deployments.begin_delete(deployment, endpoint).wait(), lambda: deployments.get(deployment, endpoint)
        )

    def _update(self, endpoint: Any) -> None:
        self.ml.online_endpoints.begin_create_or_update(endpoint)

    def _endpoint(self, name: str) -> None:
        """An endpoint goes when it is empty: what other runs have put behind it is theirs."""
        known = self._known_endpoint(name)
        if known is not None and known.traffic:
            self.say(f"the endpoint {name} stays: it still has {', '.join(sorted(known.traffic))}")
            return
        endpoints = self.ml.online_endpoints
        self._once(lambda: endpoints.begin_delete(name).wait(), lambda: endpoints.get(name))

    def _known_endpoint(self, name: str) -> Any:
        return found(lambda: self.ml.online_endpoints.get(name), f"looking for the endpoint {name}", self.say)

    def _job(self, name: str) -> None:
        """A job cannot be deleted; it is taken from the studio's lists, once it has ended."""
        job = found(lambda: self.ml.jobs.get(name), f"looking for the job {name}", self.say)
        if job is not None and not is_final(word_of(job.status)):
            raise ConfigError(f"is {job.status}, expected a job that has ended; end it: trainer cancel {self.run.path}")
        self._once(lambda: self.ml.jobs.archive(name))

    def _version(self) -> None:
        """A version of an asset, and the files that were uploaded for it; another run's ledger keeps both."""
        thing = self.entry.thing
        if (other := _other_user(self.run, self.entry)) is not None:
            self.say(f"the {thing.kind} {thing.key} stays: {other} uses it too")
            self.ledger.write(thing, "deleted", kept_for=other)
            return
        files = _uploaded_files(self.ml, self.entry, self.say)
        delete, get = (partial(_ask_for_version, method, self.place, self.entry) for method in ("DELETE", "GET"))
        self._once(delete, get)
        if files is not None:
            count = open_datastore(self.ml, *files, self.say).delete_all()
            self.say(f"{count} uploaded files of the {thing.kind} {thing.key} are deleted")


def _ask_for_version(method: str, place: Place, entry: Entry) -> bytes:
    """The SDK can archive versions only; Azure's resource manager deletes them.

    Raises: ConfigError, when the version's id is not known.
    """
    return ask(method, f"{ARM}{_version_id(place, entry)}?api-version={VERSIONS_API}", credential())


def _uploaded_files(ml: "MLClient", entry: Entry, say: Say) -> tuple[str, str] | None:
    """Datastore and prefix of the files that were uploaded for it; None where the service keeps them itself."""
    thing = entry.thing
    reads: dict[str, Callable[[str, str], Any]] = {
        "model": ml.models.get, "data": ml.data.get, "environment": ml.environments.get,
    }  # fmt: skip
    if thing.kind not in reads:
        return None
    name, _, version = thing.key.rpartition(":")
    known = found(lambda: reads[thing.kind](name, version), f"looking for the {thing.kind} {thing.key}", say)
    source = known.build if thing.kind == "environment" and known is not None else known
    return None if source is None else _upload_of(source.path)


def _other_user(run: Run, entry: Entry) -> str | None:
    """Another run beside this one whose ledger holds the same thing: what is named by its content is shared."""
    for other in list_runs(run.path.parent):
        if other.path.resolve() != run.path.resolve():
            for theirs in Ledger(other.path).open():
                if theirs.thing.identity == entry.thing.identity:
                    return other.name
    return None


def _version_id(place: Place, entry: Entry) -> str:
    known = str(entry.facts.get("id") or "").removeprefix("azureml:")
    if known.startswith("/subscriptions/"):
        return known
    name, _, version = entry.thing.key.rpartition(":")
    if not name:
        raise ConfigError("its id is not known, expected one of an earlier answer; look for it in the studio")
    return f"{place.arm_id}/{PLURALS[entry.thing.kind]}/{name}/versions/{version}"


def _upload_of(path: object) -> tuple[str, str] | None:
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
