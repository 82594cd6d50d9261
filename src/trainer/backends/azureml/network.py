"""Checks of a workspace's kind and network: access to it, and the addresses that its machines reach.

The facts are those of the resource manager: azure-ai-ml gives a hub and a project no discovery address.
"""

from typing import TYPE_CHECKING, Any

from trainer.backends.arm import read_one, region_name
from trainer.backends.azureml.workspace import Place, credential, read_workspace
from trainer.backends.http import Say, found

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

    from trainer.backends.azureml.survey import Survey

RUNS_JOBS = ("default", "project")  # kinds of workspace
REGISTRIES = "2023-07-01"  # the version of container registries
HUB_HOSTS = ("huggingface.co", "*.huggingface.co")


def look_at_workspace(seen: "Survey", place: Place, say: Say) -> bool:
    """Read the workspace and return True, or refuse one that does not exist. Raises: BackendError."""
    workspace = read_workspace(place, say)
    if workspace is None:
        seen.refuse(
            "workspace", f"azureml.workspace: {place} was not found; correct azureml.workspace and resource_group"
        )
        return False
    seen.workspace = workspace.get("properties") or {}
    seen.region = region_name(workspace.get("location"))
    kind = str(workspace.get("kind") or "Default")
    if kind.lower() not in RUNS_JOBS:
        projects = [str(one).rpartition("/")[2] for one in seen.workspace.get("associatedWorkspaces") or []]
        named = f"one of its projects: {', '.join(projects)}" if projects else "a workspace, or a project of a hub"
        seen.refuse("workspace kind", f"azureml.workspace: {place.workspace!r} is a {kind}, expected {named}")
        return True
    seen.ok("workspace", f"{place}, {seen.region}")
    seen.ok("workspace kind", "a workspace" if kind.lower() == "default" else f"a {kind}")
    access = str(seen.workspace.get("publicNetworkAccess") or "Enabled")
    if access.lower() == "enabled":
        seen.ok("public access", "enabled")
    else:
        seen.ok("public access", f"{access.lower()}: a private network leads to it, see run history")
    return True


def look_at_egress(seen: "Survey", needs_hub: bool) -> None:
    """Check that the machines reach the hub, if the base comes from there."""
    network = seen.workspace.get("managedNetwork") or {}
    mode = str(network.get("isolationMode") or "Disabled")
    if mode == "Disabled":
        seen.ok("network isolation", "none: no managed network")
        why = "no call tells which addresses a network of your own lets through"
        if needs_hub and seen.workspace.get("publicNetworkAccess") == "Disabled":
            seen.unknown("egress to the hub", why)
        elif needs_hub:
            seen.ok("egress to the hub", "open")
        return
    status = str((network.get("status") or {}).get("status") or "unknown")
    if status == "Active":
        seen.ok("network isolation", f"managed network, {mode}")
    else:
        seen.unknown("network isolation", f"managed network, {mode}, is {status}: the first job waits until it is made")
    if not needs_hub:
        return
    if mode == "AllowInternetOutbound":
        seen.ok("egress to the hub", "open")
        return
    allowed = [rule.get("destination") for rule in (network.get("outboundRules") or {}).values()]
    if any(host in allowed for host in HUB_HOSTS):
        seen.ok("egress to the hub", "an outbound rule names it; its download servers may need rules of their own")
    else:
        seen.refuse(
            "egress to the hub",
            "model.base: is on the hub, which the workspace's managed network lets no machine reach, expected an "
            f"outbound rule for {HUB_HOSTS[0]}, a folder, or azureml:NAME:VERSION; change model.base, or add the rule",
        )


def look_at_image_build(environment: str | None, seen: "Survey", client: "MLClient", say: Say) -> None:
    """Check that the image of a job can be built; a private registry cannot build by itself."""
    what, name = "image build", seen.workspace.get("imageBuildCompute")
    if environment is not None:
        seen.ok(what, f"none of ours: azureml.environment is {environment}")
        return
    if name:
        name = str(name).rpartition("/")[2]
        cluster: Any = found(lambda: client.compute.get(name), f"reading the compute {name!r}", say)
        if cluster is None:
            seen.refuse(
                what,
                f"azureml.workspace: builds images on the compute {name!r}, which was not found; set another with: "
                "az ml workspace update --image-build-compute NAME",
            )
        else:
            seen.ok(what, f"on the compute {name}")
        return
    if not (registry := str(seen.workspace.get("containerRegistry") or "")):
        if _is_private(seen):
            seen.unknown(what, "the workspace makes its registry with the first image, and may make it private")
        else:
            seen.ok(what, "by the registry that the workspace makes with its first image")
        return
    known = read_one(registry, REGISTRIES, "reading the workspace's registry", credential(), say)
    about, name = (known or {}).get("properties") or {}, registry.rpartition("/")[2]
    if known is None:
        seen.unknown(what, f"you see no registry {name}")
    elif "Disabled" in str(about.get("publicNetworkAccess")) or (
        (about.get("networkRuleSet") or {}).get("defaultAction") == "Deny"
    ):
        seen.refuse(
            what,
            f"azureml.workspace: its registry {name} is private and cannot build images itself, expected a compute "
            "that does; set it with: az ml workspace update --image-build-compute NAME; or give azureml.environment",
        )
    else:
        seen.ok(what, f"by the registry {name}")


def _is_private(seen: "Survey") -> bool:
    isolation = (seen.workspace.get("managedNetwork") or {}).get("isolationMode")
    return isolation not in (None, "Disabled") or seen.workspace.get("publicNetworkAccess") == "Disabled"
