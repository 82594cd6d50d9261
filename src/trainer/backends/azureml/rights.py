"""What the caller may do in the workspace, asked of Azure's resource manager."""

import fnmatch
from collections.abc import Iterable
from typing import Any

from trainer.backends.azureml.arm import read_list
from trainer.backends.azureml.workspace import Place
from trainer.backends.http import Say

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
    path = f"{place.arm_id}/providers/Microsoft.Authorization/permissions"
    found = read_list(path, VERSION, "reading your rights in the workspace", say)
    return [f"{what} ({action})" for action, what in NEEDED.items() if not allows(found, action)]


def allows(permissions: Iterable[dict[str, Any]], action: str) -> bool:
    """Whether one of the roles grants the action: each takes away only from what it gives itself."""
    return any(
        _matches(role.get("actions"), action) and not _matches(role.get("notActions"), action) for role in permissions
    )


def _matches(patterns: list[str] | None, action: str) -> bool:
    return any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns or [])
