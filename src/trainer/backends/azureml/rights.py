"""What the caller may do in the workspace, asked of Azure's resource manager."""

from trainer.backends.arm import allows, read_permissions
from trainer.backends.azureml.workspace import Place, credential
from trainer.backends.http import Say

NEEDED = {
    "Microsoft.MachineLearningServices/workspaces/jobs/write": "create a job",
    "Microsoft.MachineLearningServices/workspaces/jobs/read": "follow a job",
    "Microsoft.MachineLearningServices/workspaces/codes/versions/write": "upload code",
    "Microsoft.MachineLearningServices/workspaces/data/versions/write": "upload data",
    "Microsoft.MachineLearningServices/workspaces/environments/versions/write": "register the environment",
}


def missing_rights(place: Place, say: Say) -> list[str]:
    """What the caller may not do of what a run needs. Raises: BackendError."""
    found = read_permissions(place.arm_id, "reading your rights in the workspace", credential(), say)
    return [f"{what} ({action})" for action, what in NEEDED.items() if not allows(found, action)]
