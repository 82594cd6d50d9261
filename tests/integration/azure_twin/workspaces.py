"""Workspaces as other people have them: changes of the twin's own, which is a plain one."""

from collections.abc import Callable

from tests.integration.azure_twin.twin import Twin
from tests.integration.azure_twin.world import GROUP_ID


def hub(twin: Twin) -> None:
    twin.arm.workspace["kind"] = "Hub"
    twin.arm.workspace["properties"]["associatedWorkspaces"] = [f"{GROUP_ID}/workspaces/project-one"]


def isolated(mode: str, *hosts: str, builds: str = "") -> Callable[[Twin], None]:
    def change(twin: Twin) -> None:
        rules = {str(number): {"type": "FQDN", "destination": host} for number, host in enumerate(hosts)}
        network = {"isolationMode": mode, "outboundRules": rules, "status": {"status": "Active"}}
        twin.arm.workspace["properties"] |= {"managedNetwork": network, "imageBuildCompute": builds or None}

    return change


def identity_based(twin: Twin) -> None:
    twin.arm.identity_stores = True


def refusing(code: str) -> Callable[[Twin], None]:
    def change(twin: Twin) -> None:
        twin.arm.identity_stores, twin.arm.storage_refusal = True, code

    return change
