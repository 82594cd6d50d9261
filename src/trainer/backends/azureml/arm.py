"""Reading from Azure's resource manager what azure-ai-ml does not hand on: rights, and the numbers of sizes and quotas.

Its entities for sizes and usages leave the cores and the current value at None (1.35.2): they look for other names.
"""

import json
from typing import Any

from trainer.backends.azureml.workspace import credential
from trainer.backends.http import Say, patiently, timeout_seconds

ARM = "https://management.azure.com"
MOST_PAGES = 20


def read_list(path: str, version: str, doing: str, say: Say) -> list[dict[str, Any]]:
    """All entries of a list, page by page. Raises: BackendError."""
    found: list[dict[str, Any]] = []
    address: str | None = f"{ARM}{path}?api-version={version}"
    for _ in range(MOST_PAGES):
        page = patiently(lambda address=address: _get(str(address)), doing, say)  # type: ignore[misc]
        found += page.get("value") or []
        address = page.get("nextLink")
        if not address or not address.startswith(f"{ARM}/"):
            break
    return found


def _get(address: str) -> dict[str, Any]:
    from azure.core import PipelineClient
    from azure.core.pipeline.policies import BearerTokenCredentialPolicy
    from azure.core.rest import HttpRequest

    policy = BearerTokenCredentialPolicy(credential(), f"{ARM}/.default")
    timeouts = {"connection_timeout": timeout_seconds(), "read_timeout": timeout_seconds()}
    client: Any = PipelineClient(ARM, policies=[policy], **timeouts)
    response = client.send_request(HttpRequest("GET", address))
    response.raise_for_status()
    found: dict[str, Any] = json.loads(response.content)
    return found
