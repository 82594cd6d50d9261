"""Reading from Azure's resource manager what the SDKs do not hand on: rights, and the numbers of sizes and quotas.

azure-ai-ml's entities for sizes and usages leave the cores and the current value at None (1.35.2): they look for other
names. What a caller may do has no operation in either SDK.
"""

import fnmatch
import json
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from trainer.backends.http import Say, found, patiently, timeout_seconds
from trainer.errors import BackendError, quoted

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

ARM = "https://management.azure.com"
PERMISSIONS = "2022-04-01"  # the version of Microsoft.Authorization
MOST_PAGES = 1000  # the longest lists, of sizes and quotas, have a handful


def region_name(location: object) -> str:
    """A region in the spelling of Azure's lists: eastus2, also where a resource says East US 2."""
    return str(location).replace(" ", "").lower()


def read_one(
    path: str, version: str, doing: str, credential: "TokenCredential", say: Say, arm: str = ARM
) -> dict[str, Any] | None:
    """A resource as the manager describes it, None where there is none. Raises: BackendError."""
    address = f"{arm}{path}?api-version={version}"
    return found(lambda: _page(address, credential, arm), doing, say)


def read_list(
    path: str, version: str, doing: str, credential: "TokenCredential", say: Say, arm: str = ARM, having: str = ""
) -> list[dict[str, Any]]:
    """All entries of a list, page by page; `having` is an OData filter.

    Raises: BackendError, also where the list has no end.
    """
    found: list[dict[str, Any]] = []
    query = f"&$filter={quote(having)}" if having else ""
    address, seen = f"{arm}{path}?api-version={version}{query}", set[str]()
    while address:
        if address in seen or len(seen) == MOST_PAGES:
            raise BackendError(f"{doing}: the list has no end after {len(seen):,} pages, expected one; try again later")
        seen.add(address)
        page = patiently(partial(_page, address, credential, arm), doing, say)
        found += page.get("value") or []
        address = _next(page, doing, arm)
    return found


def read_permissions(
    resource: str, doing: str, credential: "TokenCredential", say: Say, arm: str = ARM
) -> list[dict[str, Any]]:
    """The roles of the caller at a resource, as `allows` reads them. Raises: BackendError."""
    path = f"{resource}/providers/Microsoft.Authorization/permissions"
    return read_list(path, PERMISSIONS, doing, credential, say, arm)


def read_roles(principal: str, resource: str, credential: "TokenCredential", say: Say) -> list[dict[str, Any]]:
    """The roles of an identity at a resource, as `allows` reads them, its groups' included. Raises: BackendError."""
    doing = f"reading the roles of {principal}"
    path = f"{resource}/providers/Microsoft.Authorization/roleAssignments"
    having = f"assignedTo('{principal}')"
    definitions = {
        str(entry["properties"]["roleDefinitionId"])
        for entry in read_list(path, PERMISSIONS, doing, credential, say, having=having)
        if f"{resource}/".lower().startswith(str(entry["properties"].get("scope")).rstrip("/").lower() + "/")
    }
    found: list[dict[str, Any]] = []
    for definition in sorted(definitions):
        role = read_one(definition, PERMISSIONS, doing, credential, say) or {}
        found += (role.get("properties") or {}).get("permissions") or []
    return found


def allows(
    permissions: Iterable[dict[str, Any]], action: str, kind: Literal["actions", "dataActions"] = "actions"
) -> bool:
    """True if one of the roles grants the action: each takes away only from what it gives itself."""
    taken = "notActions" if kind == "actions" else "notDataActions"
    return any(_matches(role.get(kind), action) and not _matches(role.get(taken), action) for role in permissions)


def _matches(patterns: list[str] | None, action: str) -> bool:
    return any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns or [])


def _next(page: dict[str, Any], doing: str, arm: str) -> str:
    """Address of the list's next page, empty at its end. Raises: BackendError, where the token must not be sent."""
    address = str(page.get("nextLink") or "")
    if address and _scheme_host_port(address) != _scheme_host_port(arm):
        raise BackendError(
            f"{doing}: the list continues at {quoted(address)}, expected {arm}; see what stands between here and Azure"
        )
    return address


def _scheme_host_port(address: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port; Azure writes the port into some links and not into others."""
    parts = urlsplit(address)
    return parts.scheme, parts.hostname, parts.port or {"https": 443}.get(parts.scheme)


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
