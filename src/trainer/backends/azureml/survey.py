"""Survey the workspace: region, cluster, machine, quota, datastore, rights. Findings are collected, not raised."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainer.backends.arm import allows, read_list, read_permissions
from trainer.backends.azureml.machines import Machine, find_machine
from trainer.backends.azureml.workspace import Place, credential, found, word_of
from trainer.backends.http import Say, patiently
from trainer.config.azureml import AzureMLConfig
from trainer.errors import BackendError, similar

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Workspace

SIZES_VERSION = "2024-04-01"  # of the lists of sizes and usages
LOW_PRIORITY = "LowPriorityCores"  # one quota for all families of a region
NEEDED_RIGHTS = {
    "Microsoft.MachineLearningServices/workspaces/jobs/write": "create a job",
    "Microsoft.MachineLearningServices/workspaces/jobs/read": "follow a job",
    "Microsoft.MachineLearningServices/workspaces/codes/versions/write": "upload code",
    "Microsoft.MachineLearningServices/workspaces/data/versions/write": "upload data",
    "Microsoft.MachineLearningServices/workspaces/environments/versions/write": "register the environment",
}


@dataclass
class Survey:
    """Facts about the workspace that a run goes to. `unverified`: what could not be looked at, and why."""

    region: str | None = None
    instance_type: str | None = None
    machine: Machine | None = None
    num_gpus: int | None = None
    problems: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)

    @contextmanager
    def looking_at(self, what: str) -> Iterator[None]:
        """A look that fails for its own reasons hides no other finding."""
        try:
            yield
        except BackendError as error:
            self.unverified.append(f"{what}: {error}")


def survey(settings: AzureMLConfig, client: "MLClient", place: Place, say: Say) -> Survey:
    """Look at everything once. Raises: BackendError, when the workspace itself cannot be read."""
    seen = Survey()
    workspace = found(lambda: client.workspaces.get(place.workspace), "reading the workspace", say)
    if workspace is None:
        seen.problems.append(f"azureml.workspace: {place} was not found; correct azureml.workspace and resource_group")
        return seen
    seen.region = region_of(workspace)
    with seen.looking_at("rights"):
        _look_at_rights(seen, place, say)
    with seen.looking_at("compute"):
        _look_at_compute(settings, seen, client, say)
    _look_at_machine(settings, seen, place, say)
    with seen.looking_at("datastore"):
        _look_at_datastore(settings, seen, client, say)
    if settings.environment is not None:
        with seen.looking_at("environment"):
            _look_at_environment(settings.environment, seen, client, say)
    return seen


def region_of(workspace: "Workspace") -> str:
    """The workspace's region as Azure's lists write it."""
    return str(workspace.location).lower().replace(" ", "")


@dataclass(frozen=True, slots=True)
class Region:
    """What a region of a subscription offers. Each list is read once it is asked for. Raises: BackendError."""

    place: Place
    name: str
    say: Say

    def size(self, machine: str, setting: str) -> dict[str, Any] | str:
        """The service's own description of a machine, or what is wrong with the setting that names it."""
        sizes = self._list("vmSizes", "listing machine sizes")
        match = next((size for size in sizes if str(size.get("name")).lower() == machine.lower()), None)
        known = similar(machine, [str(size.get("name")) for size in sizes])
        return match or f"{setting}: {machine} is not offered in {self.name}{known}"

    def quota(self, family: str) -> dict[str, Any] | None:
        """The quota of a family of machines; None where the service lists none."""
        usages = self._list("usages", "reading quotas")
        return next((one for one in usages if _plain(family) in _plain(_name_of(one))), None)

    def _list(self, what: str, doing: str) -> list[dict[str, Any]]:
        provider = f"/subscriptions/{self.place.subscription}/providers/Microsoft.MachineLearningServices"
        return read_list(f"{provider}/locations/{self.name}/{what}", SIZES_VERSION, doing, credential(), self.say)


def lacking_cores(quota: dict[str, Any], needed: int) -> str | None:
    """How many cores are free, where they are too few. A cluster's nodes count once they run."""
    free = int(quota.get("limit") or 0) - int(quota.get("currentValue") or 0)
    return f"{max(free, 0)} of {quota.get('limit')} are free" if needed > free else None


def retirement(setting: str, name: str, machine: Machine | None) -> Iterator[str]:
    """The problem of a machine that is no longer offered."""
    if machine is not None and machine.retired:
        yield (
            f"{setting}: {name} was retired on {machine.retired}, expected a machine that is still offered, "
            "for example Standard_NC4as_T4_v3 or Standard_NC24ads_A100_v4"
        )


def _look_at_rights(seen: Survey, place: Place, say: Say) -> None:
    granted = read_permissions(place.arm_id, "reading your rights in the workspace", credential(), say)
    lacking = [f"{what} ({action})" for action, what in NEEDED_RIGHTS.items() if not allows(granted, action)]
    if lacking:
        seen.problems.append(
            f"azureml.workspace: you may not {', '.join(lacking)}, expected the role AzureML Data Scientist; "
            "ask the workspace's owner"
        )


def _look_at_compute(settings: AzureMLConfig, seen: Survey, client: "MLClient", say: Say) -> None:
    seen.instance_type = settings.instance_type
    name = settings.compute
    if name is None:
        if settings.instance_type is None:
            seen.problems.append(
                "azureml.instance_type: is not set, expected a machine, or a cluster in azureml.compute; "
                "for example azureml.instance_type=Standard_NC24ads_A100_v4"
            )
        return
    cluster = found(lambda: client.compute.get(name), f"reading the cluster {name!r}", say)
    if cluster is None:
        known = [one.name for one in patiently(lambda: list(client.compute.list()), "listing clusters", say)]
        seen.problems.append(
            f"azureml.compute: {name!r} was not found in the workspace{similar(name, known)}, "
            f"expected one of: {', '.join(known) or 'none, there is no cluster'}"
        )
        return
    if str(cluster.type).lower() != "amlcompute":
        seen.problems.append(f"azureml.compute: {name!r} is of type {cluster.type}, expected a compute cluster")
        return
    seen.instance_type = str(cluster.size)
    tier = "low_priority" if "low" in word_of(cluster.tier).lower() else "dedicated"
    if tier != settings.tier:
        seen.problems.append(
            f"azureml.tier: is {settings.tier}, and the cluster {name!r} is {tier}; set azureml.tier={tier}, "
            "as the price depends on it"
        )
    if cluster.max_instances is not None and cluster.max_instances < settings.instance_count:
        seen.problems.append(
            f"azureml.instance_count: is {settings.instance_count}, and the cluster {name!r} has at most "
            f"{cluster.max_instances} nodes; lower it, or resize the cluster"
        )


def _look_at_machine(settings: AzureMLConfig, seen: Survey, place: Place, say: Say) -> None:
    name, setting = seen.instance_type, "azureml.compute" if settings.compute else "azureml.instance_type"
    if name is None:
        return
    seen.machine = find_machine(name)
    if seen.machine is not None:
        seen.num_gpus = seen.machine.num_gpus
    seen.problems += retirement(setting, name, seen.machine)
    with seen.looking_at("machine and quota"):
        region = Region(place, str(seen.region), say)
        size = region.size(name, setting)
        if isinstance(size, str):
            seen.problems.append(size)
            return
        seen.num_gpus = int(size.get("gpus") or 0)
        if seen.machine is None:
            seen.unverified.append(f"{name} is not in the table of GPU machines: its GPU, memory and speed are unknown")
        _look_at_quota(settings, seen, size, region)


def _look_at_quota(settings: AzureMLConfig, seen: Survey, size: dict[str, Any], region: Region) -> None:
    """Cores that are free; some of those in use may be this run's already."""
    kind = LOW_PRIORITY if settings.tier == "low_priority" else str(size.get("family"))
    quota = region.quota(kind)
    if quota is None:
        seen.unverified.append(f"quota: the service lists none for {kind}")
        return
    needed = int(size.get("vCPUs") or 0) * settings.instance_count
    if free := lacking_cores(quota, needed):
        seen.problems.append(
            f"azureml.instance_count: {settings.instance_count} x {size['name']} need {needed} cores, and of {kind} "
            f"{free} in {region.name}; ask for more in the studio, or wait"
        )


def _look_at_datastore(settings: AzureMLConfig, seen: Survey, client: "MLClient", say: Say) -> None:
    name = settings.datastore
    store = found(lambda: client.datastores.get(name), f"reading the datastore {name!r}", say)
    if store is None:
        seen.problems.append(f"azureml.datastore: {name!r} was not found in the workspace; name one of its datastores")
    elif "blob" not in word_of(store.type).lower():
        seen.problems.append(
            f"azureml.datastore: {name!r} is {word_of(store.type)}, expected blob storage; name another"
        )


def _look_at_environment(reference: str, seen: Survey, client: "MLClient", say: Say) -> None:
    if "/" in reference:
        seen.unverified.append(f"environment {reference!r}: is not one of the workspace by its name")
        return
    name, _, version = reference.removeprefix("azureml:").removesuffix("@latest").partition(":")

    def look() -> Any:
        if version:
            return client.environments.get(name, version)
        return next(iter(client.environments.list(name=name)), None)

    if found(look, "reading the environment", say) is None:
        seen.problems.append(
            f"azureml.environment: {reference!r} was not found in the workspace; correct name or version"
        )


def _name_of(usage: dict[str, Any]) -> str:
    return str((usage.get("name") or {}).get("value") or "")


def _plain(name: str) -> str:
    """A family's name without the words that stand around it in one list and not in another."""
    plain = "".join(char for char in name.lower() if char.isalnum())
    for word in ("standard", "family", "cluster", "dedicated", "vcpus"):
        plain = plain.replace(word, "")
    return plain or "?"
