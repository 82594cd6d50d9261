"""The names of the twin's one subscription, and what the service says around every resource."""

import uuid
from datetime import UTC, datetime
from typing import Any

SUBSCRIPTION = "33333333-3333-3333-3333-333333333333"
GROUP = "rg-twin"
WORKSPACE = "ws-twin"
REGION = "eastus"
ACCOUNT = "twinstorage"
ACCOUNT_KEY = "dHdpbi1zdG9yYWdlLWtleS10d2luLXN0b3JhZ2Uta2V5LXR3aW4tc3RvcmFnZS1rZXktdHdpbi1zdG9yYWdlLWs="
PROVIDER = "Microsoft.MachineLearningServices"

SUBSCRIPTION_ID = f"/subscriptions/{SUBSCRIPTION}"
GROUP_ID = f"{SUBSCRIPTION_ID}/resourceGroups/{GROUP}"
WORKSPACE_ID = f"{GROUP_ID}/providers/{PROVIDER}/workspaces/{WORKSPACE}"

ARM_HOST = "management.azure.com"
PRICES_HOST = "prices.azure.com"
PLANE_HOST = f"{REGION}.api.azureml.ms"
BLOB_HOST = f"{ACCOUNT}.blob.core.windows.net"
SCORING_HOSTS = f"*.{REGION}.inference.ml.azure.com"

ARTIFACTS = "azureml"  # the container of logs and of outputs without a name


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def new_id() -> str:
    return str(uuid.uuid4())


def system_data() -> dict[str, Any]:
    at = now()
    return {
        "createdAt": at, "createdBy": "twin", "createdByType": "Application",
        "lastModifiedAt": at, "lastModifiedBy": "twin", "lastModifiedByType": "Application",
    }  # fmt: skip
