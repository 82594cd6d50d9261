"""Roles of identities, key vaults, registries: what the resource manager tells of what stands around a workspace.

The dataActions of the two roles are those of Azure's own list of built-in roles.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from tests.integration.azure_twin.world import GROUP_ID, SUBSCRIPTION_ID
from tests.loopback import Request, Response

AUTHORIZATION = "/providers/microsoft.authorization/"
DEFINITIONS = f"{SUBSCRIPTION_ID}/providers/Microsoft.Authorization/roleDefinitions"
BLOB_CONTRIBUTOR = f"{DEFINITIONS}/ba92f5b4-2d11-453d-a403-e96b0029c9fe"
SECRETS_USER = f"{DEFINITIONS}/4633458b-17de-408a-b874-0445c86b69e6"
BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
DATA_ACTIONS = {
    BLOB_CONTRIBUTOR: [f"{BLOBS}/{verb}" for verb in ("delete", "read", "write", "move/action", "add/action")],
    SECRETS_USER: [f"Microsoft.KeyVault/vaults/secrets/{verb}" for verb in ("getSecret/action", "readMetadata/action")],
}


@dataclass
class Roles:
    """`mine` and `my_data`: what the caller may do everywhere. `given`: identity, scope and role of others."""

    mine: list[str] = field(default_factory=lambda: ["*"])
    my_data: list[str] = field(default_factory=lambda: ["*"])
    given: list[tuple[str, str, str]] = field(default_factory=list)
    vaults: dict[str, dict[str, Any]] = field(default_factory=dict)  # properties by name
    registries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def vault_id(self, name: str) -> str:
        return f"{GROUP_ID}/providers/Microsoft.KeyVault/vaults/{name}"

    def registry_id(self, name: str) -> str:
        return f"{GROUP_ID}/providers/Microsoft.ContainerRegistry/registries/{name}"

    def answer(self, request: Request) -> Response | None:
        """None for what is about something else."""
        path = request.path.rstrip("/").lower()
        having = request.query.get("$filter", "")
        if path.endswith(f"{AUTHORIZATION}permissions"):
            role = {"actions": self.mine, "notActions": [], "dataActions": self.my_data, "notDataActions": []}
            return Response(200, {"value": [role]})
        if path.endswith(f"{AUTHORIZATION}roleassignments"):
            (principal,) = re.findall(r"assignedTo\('([^']+)'\)", having)
            found = [
                {"properties": {"roleDefinitionId": role, "principalId": who, "scope": scope}}
                for who, scope, role in self.given
                if who == principal
            ]
            return Response(200, {"value": found})
        for role, actions in DATA_ACTIONS.items():
            if path == role.lower():
                granted = {"actions": [], "notActions": [], "dataActions": actions, "notDataActions": []}
                return Response(200, {"id": role, "properties": {"permissions": [granted]}})
        if path == f"{SUBSCRIPTION_ID}/resources".lower():
            named = re.search(r"name eq '([^']+)'", having)
            names = [name for name in self.vaults if named and name == named[1]]
            return Response(200, {"value": [{"id": self.vault_id(name), "name": name} for name in names]})
        known = {self.vault_id(name): about for name, about in self.vaults.items()}
        known |= {self.registry_id(name): about for name, about in self.registries.items()}
        for identity, properties in known.items():
            if path == identity.lower():
                return Response(200, {"id": identity, "properties": properties})
        return None
