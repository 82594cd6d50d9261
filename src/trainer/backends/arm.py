"""Reading from Azure's resource manager what the SDKs do not hand on: rights, and the numbers of sizes and quotas.

azure-ai-ml's entities for sizes and usages leave the cores and the current value at None (1.35.2): they look for other
names. What a caller may do has no operation in either SDK.
"""

import fnmatch
import json
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from trainer.backends.http import Say, patiently, timeout_seconds

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

ARM = "https://management.azure.com"
PERMISSIONS = "2022-04-01"  # the version of Microsoft.Authorization
MOST_PAGES = 20


def read_list(
    path: str, version: str, doing: str, credential: "TokenCredential", say: Say, arm: str = ARM
) -> list[dict[str, Any]]:
    """All entries of a list, page by page. Raises: BackendError."""
    found: list[dict[str, Any]] = []
    address = f"{arm}{path}?api-version={version}"
    for _ in range(MOST_PAGES):
        page = patiently(partial(_page, address, credential, arm), doing, say)
        found += page.get("value") or []
        address = str(page.get("nextLink") or "")
        if not address.startswith(f"{arm}/"):
            break
    return found


def read_permissions(
    resource: str, doing: str, credential: "TokenCredential", say: Say, arm: str = ARM
) -> list[dict[str, Any]]:
    """The roles of the caller at a resource, as `allows` reads them. Raises: BackendError."""
    path = f"{resource}/providers/Microsoft.Authorization/permissions"
    return read_list(path, PERMISSIONS, doing, credential, say, arm)


def allows(
    permissions: Iterable[dict[str, Any]], action: str, kind: Literal["actions", "dataActions"] = "actions"
) -> bool:
    """Whether one of the roles grants the action: each takes away only from what it gives itself."""
    taken = "notActions" if kind == "actions" else "notDataActions"
    return any(_matches(role.get(kind), action) and not _matches(role.get(taken), action) for role in permissions)


def _matches(patterns: list[str] | None, action: str) -> bool:
    return any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns or [])


def _page(address: str, credential: "TokenCredential", arm: str) -> dict[str, Any]:
    page: dict[str, Any] = json.loads(ask("GET", address, credential, arm))
    return page


def ask(method: str, address: str, credential: "TokenCredential", arm: str = ARM) -> bytes:
    """One request, whose failure is azure-core's; the body of a good answer."""
    from azure.core import PipelineClient
    from azure.core.pipeline.policies import BearerTokenCredentialPolicy
    from azure.core.rest import HttpRequest

    policy = BearerTokenCredentialPolicy(credential, f"{arm}/.default")
    timeouts = {"connection_timeout": timeout_seconds(), "read_timeout": timeout_seconds()}
    client: Any = PipelineClient(arm, policies=[policy], **timeouts)
    with client:
        response = client.send_request(HttpRequest(method, address))
        response.raise_for_status()
        content: bytes = response.content
    return content
