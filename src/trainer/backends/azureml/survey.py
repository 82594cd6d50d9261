"""Survey of a workspace: every check of rights, compute, machine, quota, access and network, collected, not raised."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainer.backends.arm import allows, read_list, read_permissions
from trainer.backends.azureml.access import look_at_access
from trainer.backends.azureml.follow import History
from trainer.backends.azureml.image import lacking_kernels, own_image
from trainer.backends.azureml.machines import Machine
from trainer.backends.azureml.network import look_at_egress, look_at_image_build, look_at_workspace
from trainer.backends.azureml.sizes import find_machine
from trainer.backends.azureml.workspace import Place, credential, word_of
from trainer.backends.contract import Check
from trainer.backends.http import Say, found, hurried, patiently
from trainer.config.azureml import AzureMLConfig
from trainer.errors import BackendError, similar

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

SIZES_VERSION = "2024-04-01"  # of the lists of sizes and usages
LOW_PRIORITY = "LowPriorityCores"  # one quota for all families of a region
NEEDED_RIGHTS = {
    "Microsoft.MachineLearningServices/workspaces/jobs/write": "create a job",
    "Microsoft.MachineLearningServices/workspaces/jobs/read": "follow a job",
    "Microsoft.MachineLearningServices/workspaces/codes/versions/write": "upload code",
    "Microsoft.MachineLearningServices/workspaces/data/versions/write": "upload data",
    "Microsoft.MachineLearningServices/workspaces/environments/versions/write": "register the environment",
}
LATER_RIGHTS = {
    "rights to register": ("Microsoft.MachineLearningServices/workspaces/models/versions/write",),
    "rights to deploy": (
        "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/write",
        "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments/write",
        "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/delete",
        "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments/delete",
    ),
}
HISTORY_SECONDS = 20.0  # a private network answers at once, or not at all


@dataclass
class Survey:
    """Every check of a run's workspace, and the facts found. `refusals` are the problems that no run gets past."""

    region: str | None = None
    instance_type: str | None = None
    machine: Machine | None = None
    num_gpus: int | None = None
    workspace: dict[str, Any] = field(default_factory=dict)  # its properties
    checks: list[Check] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def ok(self, what: str, found: str) -> None:
        """Record that something is in order."""
        self.checks.append(Check(what, "ok", found))

    def refuse(self, what: str, problem: str) -> None:
        """Record what makes the run impossible."""
        self.checks.append(Check(what, "problem", problem))
        self.refusals.append(problem)

    def warn(self, what: str, problem: str) -> None:
        """Record a problem that the run itself does not meet."""
        self.checks.append(Check(what, "problem", problem))

    def unknown(self, what: str, why: str) -> None:
        """Record what could not be looked at."""
        self.checks.append(Check(what, "not looked at", why))

    def judge(self, what: str, problems: Sequence[str], found: str) -> None:
        """Refuse each of the problems; without any, record that all is in order."""
        for problem in problems:
            self.refuse(what, problem)
        if not problems:
            self.ok(what, found)

    @contextmanager
    def looking_at(self, what: str) -> Iterator[None]:
        """Record a check as not looked at where its call fails, so that it hides no other finding."""
        try:
            yield
        except BackendError as error:
            self.unknown(what, str(error))


def survey(settings: AzureMLConfig, needs_hub: bool, client: "MLClient", place: Place, say: Say) -> Survey:
    """Look at everything once. Raises: BackendError, when the workspace itself cannot be read."""
    seen = Survey()
    if not look_at_workspace(seen, place, say):
        return seen
    with hurried(HISTORY_SECONDS):
        try:
            seen.ok("run history", f"answers this machine at {urlsplit(History(place, say).address()).netloc}")
        except BackendError as error:
            seen.warn("run history", f"{error}; a job would run, and could not be followed from here")
    with seen.looking_at("rights to train"):
        _look_at_rights(seen, place, say)
    with seen.looking_at("compute"):
        _look_at_compute(settings, seen, client, say)
    _look_at_machine(settings, seen, place, say)
    look_at_access(settings, seen, client, place, say)
    if settings.environment is not None:
        with seen.looking_at("environment"):
            _look_at_environment(settings.environment, seen, client, say)
    with seen.looking_at("image build"):
        look_at_image_build(settings.environment, seen, client, say)
    look_at_egress(seen, needs_hub)
    return seen


@dataclass(frozen=True, slots=True)
class Region:
    """Machines, quotas and prices of a subscription in a region, each list read on first use. Raises: BackendError."""

    place: Place
    name: str
    say: Say

    def size(self, machine: str, setting: str) -> dict[str, Any] | str:
        """The service's own description of a machine, or what is wrong with the setting that names it."""
        sizes = self.sizes()
        match = next((size for size in sizes if str(size.get("name")).lower() == machine.lower()), None)
        known = similar(machine, [str(size.get("name")) for size in sizes])
        return match or f"{setting}: {machine} is not offered in {self.name}{known}"

    def sizes(self) -> list[dict[str, Any]]:
        """The service's own descriptions of all machines."""
        return self._list("vmSizes", "listing machine sizes")

    def quota(self, family: str) -> dict[str, Any] | None:
        """The quota of a family of machines; None where the service lists none."""
        usages = self._list("usages", "reading quotas")
        return next((one for one in usages if _plain(family) in _plain(_name_of(one))), None)

    def _list(self, what: str, doing: str) -> list[dict[str, Any]]:
        provider = f"/subscriptions/{self.place.subscription}/providers/Microsoft.MachineLearningServices"
        return read_list(f"{provider}/locations/{self.name}/{what}", SIZES_VERSION, doing, credential(), self.say)


def lacking_cores(quota: dict[str, Any], needed: int) -> str | None:
    """Free cores in words, None where they suffice. A cluster's nodes count once they run."""
    free = int(quota.get("limit") or 0) - int(quota.get("currentValue") or 0)
    return f"{max(free, 0)} of {quota.get('limit')} are free" if needed > free else None


def retirement(setting: str, name: str, machine: Machine | None) -> Iterator[str]:
    """The problem of a machine that is no longer offered."""
    if machine is not None and machine.retired:
        yield (
            f"{setting}: {name} was retired on {machine.retired}, expected a machine that is still offered, "
            "for example Standard_NC4as_T4_v3 or Standard_NC24ads_A100_v4"
        )


def unknown_driver(machine: Machine | None) -> str:
    """The reason why the driver of a GPU's node is not looked at, with its family where the table has it."""
    family = "" if machine is None else f"{machine.driver} "
    return f"no call tells a node's {family}driver; the job's first act compares it and the GPUs"


def _look_at_rights(seen: Survey, place: Place, say: Say) -> None:
    granted = read_permissions(place.arm_id, "reading your rights in the workspace", credential(), say)
    role = "expected the role AzureML Data Scientist; ask the workspace's owner"
    lacking = [f"{what} ({action})" for action, what in NEEDED_RIGHTS.items() if not allows(granted, action)]
    problem = f"azureml.workspace: you may not {', '.join(lacking)}, {role}"
    seen.judge("rights to train", [problem] if lacking else [], ", ".join(NEEDED_RIGHTS.values()))
    for what, rights in LATER_RIGHTS.items():
        if missing := [action for action in rights if not allows(granted, action)]:
            seen.warn(what, f"you may not {', '.join(missing)}, {role}; the run itself does not need it")
        else:
            seen.ok(what, "granted")


def _look_at_compute(settings: AzureMLConfig, seen: Survey, client: "MLClient", say: Say) -> None:
    seen.instance_type = settings.instance_type
    name = settings.compute
    if name is None:
        if settings.instance_type is None:
            seen.refuse(
                "compute",
                "azureml.instance_type: is not set, expected a machine, or a cluster in azureml.compute; "
                "for example azureml.instance_type=Standard_NC24ads_A100_v4",
            )
        else:
            seen.ok("compute", "serverless: the service finds the machine")
        return
    cluster = found(lambda: client.compute.get(name), f"reading the cluster {name!r}", say)
    if cluster is None:
        known = [one.name for one in patiently(lambda: list(client.compute.list()), "listing clusters", say)]
        seen.refuse(
            "compute",
            f"azureml.compute: {name!r} was not found in the workspace{similar(name, known)}, "
            f"expected one of: {', '.join(known) or 'none, there is no cluster'}",
        )
        return
    if str(cluster.type).lower() != "amlcompute":
        seen.refuse("compute", f"azureml.compute: {name!r} is of type {cluster.type}, expected a compute cluster")
        return
    seen.instance_type = str(cluster.size)
    tier = "low_priority" if "low" in word_of(cluster.tier).lower() else "dedicated"
    problems = []
    if tier != settings.tier:
        problems.append(
            f"azureml.tier: is {settings.tier}, and the cluster {name!r} is {tier}; set azureml.tier={tier}, "
            "as the price depends on it"
        )
    if cluster.max_instances is not None and cluster.max_instances < settings.instance_count:
        problems.append(
            f"azureml.instance_count: is {settings.instance_count}, and the cluster {name!r} has at most "
            f"{cluster.max_instances} nodes; lower it, or resize the cluster"
        )
    seen.judge("compute", problems, f"cluster {name}, {tier}, at most {cluster.max_instances} nodes")


def _look_at_machine(settings: AzureMLConfig, seen: Survey, place: Place, say: Say) -> None:
    name, setting = seen.instance_type, "azureml.compute" if settings.compute else "azureml.instance_type"
    if name is None:
        return
    seen.machine = find_machine(name)
    if seen.machine is not None:
        seen.num_gpus = seen.machine.num_gpus
    retired = list(retirement(setting, name, seen.machine))
    with seen.looking_at("machine and quota"):
        region = Region(place, str(seen.region), say)
        size = region.size(name, setting)
        if isinstance(size, str):
            seen.judge("machine", [*retired, size], "")
            return
        seen.judge("machine", retired, f"{name} is offered in {region.name}")
        seen.num_gpus = int(size.get("gpus") or 0)
        if seen.machine is None:
            seen.unknown("GPU", f"{name} is not in the table of GPU machines: its GPU, memory and speed are unknown")
        elif settings.environment is None:
            found = f"the default image's torch has code for a GPU {seen.machine.gpu.name}"
            seen.judge("image and GPU", lacking_kernels(setting, seen.machine, own_image(seen.machine)), found)
        if seen.num_gpus:
            seen.unknown("driver", unknown_driver(seen.machine))
        _look_at_quota(settings, seen, size, region)


def _look_at_quota(settings: AzureMLConfig, seen: Survey, size: dict[str, Any], region: Region) -> None:
    """Cores that are free; some of those in use may be this run's already."""
    kind = LOW_PRIORITY if settings.tier == "low_priority" else str(size.get("family"))
    quota = region.quota(kind)
    if quota is None:
        seen.unknown("quota", f"the service lists none for {kind}")
        return
    needed = int(size.get("vCPUs") or 0) * settings.instance_count
    free = lacking_cores(quota, needed)
    problem = (
        f"azureml.instance_count: {settings.instance_count} x {size['name']} need {needed} cores, and of {kind} "
        f"{free} in {region.name}; ask for more in the studio, or wait"
    )
    seen.judge("quota", [problem] if free else [], f"{needed} cores of {kind} are free in {region.name}")


def _look_at_environment(reference: str, seen: Survey, client: "MLClient", say: Say) -> None:
    if "/" in reference:
        seen.unknown("environment", f"{reference!r} is not an environment name of this workspace")
        return
    name, _, version = reference.removeprefix("azureml:").removesuffix("@latest").partition(":")

    def look() -> Any:
        if version:
            return client.environments.get(name, version)
        return next(iter(client.environments.list(name=name)), None)

    known = found(look, "reading the environment", say) is not None
    problem = f"azureml.environment: {reference!r} was not found in the workspace; correct name or version"
    seen.judge("environment", [] if known else [problem], reference)


def _name_of(usage: dict[str, Any]) -> str:
    return str((usage.get("name") or {}).get("value") or "")


def _plain(name: str) -> str:
    """A family's name without the words that stand around it in one list and not in another."""
    plain = "".join(char for char in name.lower() if char.isalnum())
    for word in ("standard", "family", "cluster", "dedicated", "vcpus"):
        plain = plain.replace(word, "")
    return plain or "?"
