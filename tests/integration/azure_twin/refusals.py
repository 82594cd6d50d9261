"""What Azure Resource Manager refuses of a workspace, and in which words."""

import re
from typing import Any

from tests.loopback import Response

Body = dict[str, Any]
Resources = dict[str, Body]  # by their path below the workspace
FINAL = ("Completed", "Failed", "Canceled")  # states of a job that has ended
VERSIONED = ("codes", "environments", "data", "models")


def reasons_against(resources: Resources, path: str, body: Body, before: Body | None) -> Response | None:
    """What Azure answers to a body that it does not take, None where it takes it."""
    parts, properties = path.split("/"), body["properties"]
    if before is not None and before["properties"].get("provisioningState") in ("Creating", "Updating", "Deleting"):
        return refusal(409, "Conflict", f"{path} is in state {before['properties']['provisioningState']}")
    if parts[0] == "jobs":
        if before is not None and not same(before["properties"].get("command"), properties.get("command")):
            return refusal(409, "UserError", f"A job with the name {parts[1]} exists, and is another.")
        if (compute := properties.get("computeId")) and relative(compute) not in resources:
            return refusal(400, "UserError", f"The compute {compute} was not found.")
        wanted = [properties.get("codeId"), properties.get("environmentId")]
        return _absent(resources, [one for one in wanted if one and "/workspaces/" in one])
    if len(parts) == 4 and parts[2] == "deployments":
        if "/".join(parts[:2]) not in resources:
            return refusal(404, "ParentResourceNotFound", f"The endpoint {parts[1]} was not found.")
        code = (properties.get("codeConfiguration") or {}).get("codeId")
        wanted = [properties.get("model"), properties.get("environmentId"), code]
        return _absent(resources, [one for one in wanted if one and "/workspaces/" in one])
    if parts[0] == "onlineEndpoints":
        return _bad_traffic(resources, path, properties)
    if is_version(path) and before is not None:
        for name in ("codeUri", "modelUri", "dataUri"):
            if properties.get(name) and properties[name] != before["properties"].get(name):
                return refusal(409, "UserError", f"{path} exists, and its {name} cannot change.")
    return None


def reasons_against_deleting(resources: Resources, path: str) -> Response | None:
    """What Azure answers where something must not be deleted as it stands, None where it may."""
    body, parts = resources.get(path), path.split("/")
    if body is None:
        return None
    if kind_of(path) == "workspaces/jobs" and body["properties"]["status"] not in FINAL:
        return refusal(409, "Conflict", "The job has not ended; cancel it first.")
    if parts[2:3] == ["deployments"]:
        endpoint = resources.get("/".join(parts[:2]), {"properties": {}})
        if (endpoint["properties"].get("traffic") or {}).get(parts[3]):
            return refusal(400, "BadArgument", "The deployment has traffic; set it to 0 first.")
    return None


def _absent(resources: Resources, references: list[str]) -> Response | None:
    gone = [one for one in references if relative(one) not in resources]
    return refusal(400, "UserError", f"Not found: {', '.join(gone)}") if gone else None


def _bad_traffic(resources: Resources, path: str, properties: Body) -> Response | None:
    traffic = properties.get("traffic") or {}
    unknown = [name for name in traffic if f"{path}/deployments/{name}" not in resources]
    if unknown:
        return refusal(400, "BadArgument", f"Traffic for deployments that do not exist: {', '.join(unknown)}")
    if sum(traffic.values()) not in (0, 100):
        return refusal(400, "BadArgument", "The traffic of all deployments must be 0 or 100 in all.")
    return None


def kind_of(path: str) -> str:
    """The resource's type, as the published types name it."""
    return "/".join(["workspaces", *path.split("/")[::2]])


def is_version(path: str) -> bool:
    """Whether it is one version of an asset, and not the asset."""
    return path.split("/")[0] in VERSIONED and path.count("/") == 3


def relative(identity: str) -> str:
    """The path below the workspace of a full id, in whatever case its fixed parts are."""
    return re.sub(r"(?i)^(azureml:)?/subscriptions/.*?/workspaces/[^/]+/", "", identity)


def same(one: str | None, other: str | None) -> bool:
    """Whether two texts differ in white space only."""
    return " ".join((one or "").split()) == " ".join((other or "").split())


def missing(path: str) -> Response:
    return refusal(404, "ResourceNotFound", f"Not found: {path}")


class Refusal(Response):
    def __or__(self, headers: dict[str, str]) -> Response:
        return Response(self.status, self.body, headers)


def refusal(status: int, code: str, message: str) -> Refusal:
    return Refusal(status, {"error": {"code": code, "message": message}})
