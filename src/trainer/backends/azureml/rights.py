"""What the caller may do in the workspace, asked of Azure's resource manager."""

import fnmatch
import json
from collections.abc import Iterable
from typing import Any

from trainer.backends.azureml.workspace import Place, credential
from trainer.backends.http import Say, patiently, timeout_seconds

ARM = "https://management.azure.com"
VERSION = "2022-04-01"  # of Microsoft.Authorization
NEEDED = {
    "Microsoft.MachineLearningServices/workspaces/jobs/write": "create a job",
    "Microsoft.MachineLearningServices/workspaces/jobs/read": "follow a job",
    "Microsoft.MachineLearningServices/workspaces/codes/versions/write": "upload code",
    "Microsoft.MachineLearningServices/workspaces/data/versions/write": "upload data",
    "Microsoft.MachineLearningServices/workspaces/environments/versions/write": "register the environment",
}


def missing_rights(place: Place, say: Say) -> list[str]:
    """What the caller may not do of what a run needs. Raises: BackendError."""
    found = patiently(lambda: _permissions(place), "reading your rights in the workspace", say)
    return [f"{what} ({action})" for action, what in NEEDED.items() if not allows(found, action)]


def allows(permissions: Iterable[dict[str, Any]], action: str) -> bool:
    """Whether one of the roles grants the action: each takes away only from what it gives itself."""
    return any(
        _matches(role.get("actions"), action) and not _matches(role.get("notActions"), action) for role in permissions
    )


def _matches(patterns: list[str] | None, action: str) -> bool:
    return any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns or [])


def _permissions(place: Place) -> list[dict[str, Any]]:
    from azure.core import PipelineClient
    from azure.core.pipeline.policies import BearerTokenCredentialPolicy
    from azure.core.rest import HttpRequest

    policy = BearerTokenCredentialPolicy(credential(), f"{ARM}/.default")
    timeouts = {"connection_timeout": timeout_seconds(), "read_timeout": timeout_seconds()}
    client: Any = PipelineClient(ARM, policies=[policy], **timeouts)
    address = f"{ARM}{place.arm_id}/providers/Microsoft.Authorization/permissions?api-version={VERSION}"
    response = client.send_request(HttpRequest("GET", address))
    response.raise_for_status()
    found: list[dict[str, Any]] = json.loads(response.content)["value"]
    return found
