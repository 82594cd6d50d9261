"""What the workspace has: region, cluster, machine, quota, datastore, rights. Findings are collected, not raised."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainer.backends.arm import read_list
from trainer.backends.azureml.rights import missing_rights
from trainer.backends.azureml.skus import Machine, find_machine
from trainer.backends.azureml.states import word_of
from trainer.backends.azureml.submit import found_or_none
from trainer.backends.azureml.workspace import Place, credential
from trainer.backends.http import Say, patiently
from trainer.config.azureml import AzureMLConfig
from trainer.errors import BackendError, similar

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

PROVIDER = "Microsoft.MachineLearningServices"
VERSION = "2024-04-01"  # of sizes and usages
LOW_PRIORITY = "LowPriorityCores"  # one quota for all families of a region


@dataclass
class Site:
    """What is known of the place that a run goes to. `unverified`: what could not be looked at, and why."""

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


def survey(settings: AzureMLConfig, client: "MLClient", place: Place, say: Say) -> Site:
    """Look at everything once. Raises: BackendError, when the workspace itself cannot be read."""
    site, ask = Site(), _Asking(client, say)
    workspace = ask("reading the workspace", lambda: found_or_none(lambda: client.workspaces.get(place.workspace)))
    if workspace is None:
        site.problems.append(f"azureml.workspace: {place} was not found; correct azureml.workspace and resource_group")
        return site
    site.region = str(workspace.location).lower().replace(" ", "")
    with site.looking_at("rights"):
        if lacking := missing_rights(place, say):
            site.problems.append(
                f"azureml.workspace: you may not {', '.join(lacking)}, expected the role AzureML Data Scientist; "
                "ask the workspace's owner"
            )
    _look_at_compute(settings, site, client, ask)
    _look_at_machine(settings, site, place, say)
    with site.looking_at("datastore"):
        _look_at_datastore(settings, site, client, ask)
    if settings.environment is not None:
        with site.looking_at("environment"):
            _look_at_environment(settings.environment, site, client, ask)
    return site


class _Asking:
    def __init__(self, client: "MLClient", say: Say) -> None:
        self.client, self.say = client, say

    def __call__(self, doing: str, call: Callable[[], Any]) -> Any:
        return patiently(call, doing, self.say)


def _look_at_compute(settings: AzureMLConfig, site: Site, client: "MLClient", ask: _Asking) -> None:
    site.instance_type = settings.instance_type
    name = settings.compute
    if name is None:
        if settings.instance_type is None:
            site.problems.append(
                "azureml.instance_type: is not set, expected a machine, or a cluster in azureml.compute; "
                "for example azureml.instance_type=Standard_NC24ads_A100_v4"
            )
        return
    with site.looking_at("compute"):
        cluster = ask(f"reading the cluster {name!r}", lambda: found_or_none(lambda: client.compute.get(name)))
        if cluster is None:
            known = [one.name for one in ask("listing clusters", lambda: list(client.compute.list()))]
            site.problems.append(
                f"azureml.compute: {name!r} was not found in the workspace{similar(name, known)}, "
                f"expected one of: {', '.join(known) or 'none, there is no cluster'}"
            )
            return
        if str(cluster.type).lower() != "amlcompute":
            site.problems.append(f"azureml.compute: {name!r} is of type {cluster.type}, expected a compute cluster")
            return
        site.instance_type = str(cluster.size)
        tier = "low_priority" if "low" in word_of(cluster.tier).lower() else "dedicated"
        if tier != settings.tier:
            site.problems.append(
                f"azureml.tier: is {settings.tier}, and the cluster {name!r} is {tier}; set azureml.tier={tier}, "
                "as the price depends on it"
            )
        if cluster.max_instances is not None and cluster.max_instances < settings.instance_count:
            site.problems.append(
                f"azureml.instance_count: is {settings.instance_count}, and the cluster {name!r} has at most "
                f"{cluster.max_instances} nodes; lower it, or resize the cluster"
            )


def _look_at_machine(settings: AzureMLConfig, site: Site, place: Place, say: Say) -> None:
    name, setting = site.instance_type, "azureml.compute" if settings.compute else "azureml.instance_type"
    if name is None:
        return
    site.machine = find_machine(name)
    if site.machine is not None:
        site.num_gpus = site.machine.num_gpus
        if site.machine.retired:
            site.problems.append(
                f"{setting}: {name} was retired on {site.machine.retired}, expected a machine that is still offered, "
                "for example Standard_NC4as_T4_v3 or Standard_NC24ads_A100_v4"
            )
    with site.looking_at("machine and quota"):
        region = f"/subscriptions/{place.subscription}/providers/{PROVIDER}/locations/{site.region}"
        sizes = read_list(f"{region}/vmSizes", VERSION, "listing machine sizes", credential(), say)
        found = next((size for size in sizes if str(size.get("name")).lower() == name.lower()), None)
        if found is None:
            known = [str(size.get("name")) for size in sizes]
            site.problems.append(f"{setting}: {name} is not offered in {site.region}{similar(name, known)}")
            return
        site.num_gpus = int(found.get("gpus") or 0)
        if site.machine is None:
            site.unverified.append(f"{name} is not in the table of GPU machines: its GPU, memory and speed are unknown")
        _look_at_quota(
            settings, site, found, read_list(f"{region}/usages", VERSION, "reading quotas", credential(), say)
        )


def _look_at_quota(settings: AzureMLConfig, site: Site, size: dict[str, Any], usages: list[dict[str, Any]]) -> None:
    """Cores that are free. A cluster's nodes count once they run; some of them may be this run's already."""
    kind = LOW_PRIORITY if settings.tier == "low_priority" else str(size.get("family"))
    usage = usage_of(kind, usages)
    if usage is None:
        site.unverified.append(f"quota: the service lists none for {kind}")
        return
    needed = int(size.get("vCPUs") or 0) * settings.instance_count
    free = int(usage.get("limit") or 0) - int(usage.get("currentValue") or 0)
    if needed > free:
        site.problems.append(
            f"azureml.instance_count: {settings.instance_count} x {size['name']} need {needed} cores, and of {kind} "
            f"{max(free, 0)} of {usage.get('limit')} are free in {site.region}; ask for more in the studio, or wait"
        )


def usage_of(family: str, usages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The quota of a family of machines; None where the service lists none."""
    return next((one for one in usages if _family(family) in _family(_name_of(one))), None)


def _look_at_datastore(settings: AzureMLConfig, site: Site, client: "MLClient", ask: _Asking) -> None:
    name = settings.datastore
    store = ask(f"reading the datastore {name!r}", lambda: found_or_none(lambda: client.datastores.get(name)))
    if store is None:
        site.problems.append(f"azureml.datastore: {name!r} was not found in the workspace; name one of its datastores")
    elif "blob" not in word_of(store.type).lower():
        site.problems.append(
            f"azureml.datastore: {name!r} is {word_of(store.type)}, expected blob storage; name another"
        )


def _look_at_environment(reference: str, site: Site, client: "MLClient", ask: _Asking) -> None:
    if "/" in reference:
        site.unverified.append(f"environment {reference!r}: is not one of the workspace by its name")
        return
    name, _, version = reference.removeprefix("azureml:").removesuffix("@latest").partition(":")

    def look() -> Any:
        if version:
            return client.environments.get(name, version)
        return next(iter(client.environments.list(name=name)), None)

    if ask("reading the environment", lambda: found_or_none(look)) is None:
        site.problems.append(
            f"azureml.environment: {reference!r} was not found in the workspace; correct name or version"
        )


def _name_of(usage: dict[str, Any]) -> str:
    return str((usage.get("name") or {}).get("value") or "")


def _family(name: str) -> str:
    """A family's name without the words that stand around it in one list and not in another."""
    plain = "".join(char for char in name.lower() if char.isalnum())
    for word in ("standard", "family", "cluster", "dedicated", "vcpus"):
        plain = plain.replace(word, "")
    return plain or "?"
