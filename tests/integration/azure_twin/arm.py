"""Azure Resource Manager for one workspace, with a memory: what exists, what is under way, and what would bill.

A resource is kept under its path below the workspace (`jobs/one`, `onlineEndpoints/one/deployments/blue`). What takes
time (endpoints, deployments, computes, deleting them) answers with an operation to poll, as Azure does.
"""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.entra import claims_of
from tests.integration.azure_twin import catalog, resources
from tests.integration.azure_twin.blobs import Blobs
from tests.integration.azure_twin.pending import Operation
from tests.integration.azure_twin.refusals import (
    FINAL,
    VERSIONED,
    Body,
    is_version,
    kind_of,
    missing,
    reasons_against,
    reasons_against_deleting,
    refusal,
)
from tests.integration.azure_twin.roles import Roles
from tests.integration.azure_twin.types import Types
from tests.integration.azure_twin.world import (
    ACCOUNT,
    ARM_HOST,
    GROUP,
    GROUP_ID,
    PROVIDER,
    REGION,
    SUBSCRIPTION,
    SUBSCRIPTION_ID,
    WORKSPACE_ID,
    new_id,
    now,
)
from tests.loopback import Request, Response

AUDIENCES = ("https://management.azure.com", "https://management.core.windows.net")
CHANGEABLE = frozenset({"isArchived", "tags", "description", "displayName"})
OPERATIONS = f"{SUBSCRIPTION_ID}/providers/{PROVIDER}/locations/{REGION}/mfeOperations"


@dataclass
class Arm:
    blobs: Blobs
    types: Types = field(default_factory=Types)
    polls: int = 1  # how often an operation is found under way
    identity_stores: bool = False  # datastores without keys
    roles: Roles = field(default_factory=Roles)
    storage_refusal: str = ""  # the code with which storage answers 403 to everyone
    limits: dict[str, int] = field(default_factory=dict)
    run_job: Callable[[str], None] | None = None
    cancel_job: Callable[[str], None] | None = None
    start_deployment: Callable[[str], Callable[[], str]] | None = None  # its end: "" while under way, or a state
    stop_deployment: Callable[[str], None] | None = None
    deployment_log: Callable[[str], str] = lambda path: ""

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.workspace = resources.workspace()
        self.workspace_identity = self.workspace["properties"]["workspaceId"]
        self.containers = {"workspaceblobstore": f"azureml-blobstore-{self.workspace_identity}"}
        self.containers["workspaceartifactstore"] = f"azureml-{self.workspace_identity}"
        self.resources: dict[str, Body] = {}
        self.operations: dict[str, Operation] = {}
        self.keys: dict[str, Body] = {}
        text = "User container has crashed or terminated. See its log with get-logs."
        self.deployment_error = {"code": "ResourceNotReady", "message": text}
        self.created: list[str] = []  # every path, once for each time it was made
        for container in self.containers.values():
            self.blobs.make_container(container)

    # What a test asks

    def inventory(self) -> list[str]:
        """Everything that was made through the service and exists, by its path; an archived job counts as gone."""
        exists = (path for path, body in self.resources.items() if not body["properties"].get("isArchived"))
        return sorted(path for path in exists if path in self.created)

    def billing(self) -> list[str]:
        """What costs by the hour: jobs that have not ended, deployments, computes that were made here."""
        found = []
        for path, body in self.resources.items():
            kind = kind_of(path)
            running = kind == "workspaces/jobs" and body["properties"]["status"] not in FINAL
            ours = kind == "workspaces/computes" and path in self.created
            if running or ours or kind == "workspaces/onlineEndpoints/deployments":
                found.append(path)
        return sorted(found)

    def add_compute(
        self, name: str, size: str, priority: str = "Dedicated", nodes: int = 4, principal: str | None = None
    ) -> None:
        """A cluster that somebody else has made. `principal`: of its own identity."""
        scale = {"minNodeCount": 0, "maxNodeCount": nodes, "nodeIdleTimeBeforeScaleDown": "PT2M"}
        own = {
            "vmSize": size,
            "vmPriority": priority,
            "scaleSettings": scale,
            "remoteLoginPortPublicAccess": "Disabled",
        }
        body = {"location": REGION, "properties": {"computeType": "AmlCompute", "properties": own}}
        self.resources[f"computes/{name}"] = resources.compute(f"computes/{name}", body)
        self.resources[f"computes/{name}"]["properties"]["provisioningState"] = "Succeeded"
        if principal is not None:
            identity = {"type": "SystemAssigned", "principalId": principal, "tenantId": new_id()}
            self.resources[f"computes/{name}"]["identity"] = identity

    # The service

    def __call__(self, request: Request) -> Response:
        if request.path == "/metadata/endpoints":
            return Response(200, [resources.CLOUD])
        claims = claims_of(request)
        if claims is None or claims["aud"].rstrip("/") not in AUDIENCES:
            challenge = (
                f'Bearer authorization_uri="https://login.microsoftonline.com/common", resource="https://{ARM_HOST}/"'
            )
            return refusal(401, "AuthenticationFailed", "Authentication failed.") | {"WWW-Authenticate": challenge}
        if "api-version" not in request.query:
            return refusal(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
        with self.lock:
            return self._answer(request)

    def _answer(self, request: Request) -> Response:
        path = request.path.rstrip("/")
        if match := re.fullmatch(re.escape(OPERATIONS) + r"(Status|Results)/(.+)", path, re.IGNORECASE):
            return self._operation(match[2], status=match[1].lower() == "status")
        if path.lower() == SUBSCRIPTION_ID.lower():
            return Response(200, {"id": SUBSCRIPTION_ID, "subscriptionId": SUBSCRIPTION, "displayName": "twin",
                                  "state": "Enabled", "tenantId": new_id()})  # fmt: skip
        if path.lower() == GROUP_ID.lower():
            return Response(200, {"id": GROUP_ID, "name": GROUP, "type": "Microsoft.Resources/resourceGroups",
                                  "location": REGION, "properties": {"provisioningState": "Succeeded"}})  # fmt: skip
        location = f"{SUBSCRIPTION_ID}/providers/{PROVIDER}/locations/{REGION}/".lower()
        if path.lower().startswith(location):
            return self._location(path[len(location) :])
        if (told := self.roles.answer(request)) is not None:
            return told
        if path.lower() == WORKSPACE_ID.lower():
            return Response(200, self.workspace)
        if not path.lower().startswith(WORKSPACE_ID.lower() + "/"):
            return missing(path)
        return self._below(request, path[len(WORKSPACE_ID) + 1 :])

    def _location(self, rest: str) -> Response:
        match rest.lower():
            case "usages":
                return Response(200, catalog.usages(self.limits))
            case "quotas":
                return Response(200, catalog.quotas(self.limits))
            case "vmsizes":
                return Response(200, catalog.vm_sizes())
        return missing(rest)

    def _below(self, request: Request, path: str) -> Response:
        parts = path.split("/")
        if parts[0] == "datastores":
            return self._datastores(request, parts)
        if len(parts) % 2:
            return self._list(request, path) if request.method == "GET" else self._act(request, path)
        match request.method:
            case "GET" | "HEAD":
                return self._get(request, path)
            case "PUT":
                return self._put(request, path)
            case "PATCH":
                return self._patch(request, path)
            case "DELETE":
                return self._delete(path)
        return refusal(405, "MethodNotAllowed", request.method)

    def _get(self, request: Request, path: str) -> Response:
        for operation in list(self.operations.values()):
            if operation.path == path:
                operation.poll()  # it goes on, whoever looks
        body = self.resources.get(path)
        named = path.split("/")[0] in VERSIONED and path.count("/") == 1
        if named and (versions := self._versions(path)):
            body = resources.container(path, kind_of(path), versions)
        if body is None:
            return missing(path)
        self.types.check(kind_of(path), request.query["api-version"], body, answer=True)
        return Response(200, body)

    def _versions(self, path: str) -> list[Body]:
        found = [body for name, body in self.resources.items() if name.startswith(f"{path}/versions/")]
        return sorted(found, key=lambda body: (len(body["name"]), body["name"]))

    def _list(self, request: Request, path: str) -> Response:
        depth = path.count("/") + 1
        found = [
            body for name, body in self.resources.items() if name.startswith(f"{path}/") and name.count("/") == depth
        ]
        if path in VERSIONED:
            names = sorted({name.split("/")[1] for name in self.resources if name.startswith(f"{path}/")})
            paths = [f"{path}/{name}" for name in names]
            found = [resources.container(one, kind_of(one), self._versions(one)) for one in paths]
        if wanted := request.query.get("hash"):  # of the whole workspace: the name that is asked for is a new one
            found = [body for name, body in self.resources.items() if name.startswith(path.split("/")[0] + "/")]
            found = [body for body in found if body["properties"]["properties"].get("hash_sha256") == wanted]
        if request.query.get("$orderby", request.query.get("$orderBy", "")).endswith("desc"):
            found = found[::-1]
        if top := request.query.get("$top"):
            found = found[: int(top)]
        return Response(200, {"value": found})

    def _datastores(self, request: Request, parts: list[str]) -> Response:
        bodies = {
            name: resources.datastore(name, where, self.identity_stores) for name, where in self.containers.items()
        }
        if len(parts) == 1:
            default = request.query.get("isDefault", "").lower() == "true"
            return Response(200, {"value": [b for b in bodies.values() if not default or b["properties"]["isDefault"]]})
        if parts[1] not in bodies:
            return missing("/".join(parts))
        if parts[2:] == ["listSecrets"]:
            if self.identity_stores:
                return refusal(400, "UserError", "This datastore has no secrets.")
            return Response(200, {"secretsType": "AccountKey", "key": self.blobs.key})
        return Response(200, bodies[parts[1]])

    def _act(self, request: Request, path: str) -> Response:
        parent, _, action = path.rpartition("/")
        match action:
            case "startPendingUpload":
                return self._start_upload(parent)
            case "cancel":
                return self._cancel(parent)
            case "listKeys" | "listkeys" if parent in self.resources:
                return Response(200, self.keys[parent])
            case "token" if parent in self.resources:
                return Response(200, self.keys[parent] | {"accessToken": self.keys[parent]["primaryKey"]})
            case "getLogs" if parent in self.resources:
                return Response(200, {"content": self.deployment_log(parent)})
        return missing(path)

    def _start_upload(self, parent: str) -> Response:
        """A container for what will be uploaded, and a signature for it; asked again, the same one."""
        name = f"{self.workspace_identity[:8]}-{parent.split('/')[1]}".lower()
        container = re.sub(r"[^a-z0-9-]", "-", name)[:63].rstrip("-")
        self.blobs.make_container(container)
        uri = f"https://{ACCOUNT}.blob.core.windows.net/{container}"
        credential = {"credentialType": "SAS", "sasUri": f"{uri}?{self.blobs.signature(container)}"}
        account = f"{GROUP_ID}/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}"
        reference = {"blobUri": uri, "credential": credential, "storageAccountArmId": account}
        return Response(200, {"blobReferenceForConsumption": reference, "pendingUploadId": new_id(),
                              "pendingUploadType": "TemporaryBlobReference"})  # fmt: skip

    def _cancel(self, path: str) -> Response:
        if path not in self.resources:
            return missing(path)
        body = self.resources[path]["properties"]
        if body["status"] in FINAL:
            return Response(200)
        body["status"] = "CancelRequested"
        if self.cancel_job is not None:
            self.cancel_job(path.split("/")[1])
        else:
            body["status"] = "Canceled"
        return self._accepted(Operation(path, lambda: None, self.polls))

    def _put(self, request: Request, path: str) -> Response:
        body, kind, version = request.json(), kind_of(path), request.query["api-version"]
        self.types.check(kind, version, body, answer=False)
        before = self.resources.get(path)
        if refused := reasons_against(self.resources, path, body, before):
            return refused
        made = _maker(kind)(path, body)
        if before is not None:  # the same again, or a change
            made["systemData"] = before["systemData"]
            if kind == "workspaces/jobs" or is_version(path):
                made = before
                for name in CHANGEABLE & body["properties"].keys():
                    made["properties"][name] = body["properties"][name]
            else:
                made["properties"]["provisioningState"] = "Updating"
        else:
            self.created.append(path)
        self.resources[path] = made
        answer = self._begin(path, made, new=before is None)
        self.types.check(kind, version, answer.body, answer=True)
        return answer

    def _begin(self, path: str, made: Body, new: bool) -> Response:
        """Start what takes time, and answer."""
        code = 201 if new else 200
        match kind_of(path):
            case "workspaces/jobs":
                if new and self.run_job is not None:
                    self.run_job(made["name"])
                return Response(code, made)
            case "workspaces/computes" | "workspaces/onlineEndpoints":
                self.keys.setdefault(path, {"primaryKey": f"key-{new_id()}", "secondaryKey": f"key-{new_id()}"})
                return self._accepted(self._becoming(path, lambda: "Succeeded"), made, code)
            case "workspaces/onlineEndpoints/deployments":
                state = self.start_deployment(path) if self.start_deployment else lambda: "Succeeded"
                return self._accepted(self._becoming(path, state), made, code)
        return Response(code, made)

    def _becoming(self, path: str, state: Callable[[], str]) -> Operation:
        """The operation after which a resource is in the state that `state` tells."""
        operation = Operation(path, lambda: None, self.polls, ends=lambda: bool(state()))

        def finish() -> None:
            if path in self.resources:
                self.resources[path]["properties"]["provisioningState"] = state()
            if state() != "Succeeded":
                operation.status = state()
                operation.error = self.deployment_error

        operation.finish = finish
        return operation

    def _patch(self, request: Request, path: str) -> Response:
        if path not in self.resources:
            return missing(path)
        change, body = request.json(), self.resources[path]
        if refused := reasons_against(self.resources, path, {"properties": change.get("properties") or {}}, body):
            return refused
        body["properties"] |= change.get("properties") or {}
        body["tags"] = change.get("tags") or body.get("tags") or {}
        return Response(200, body)

    def _delete(self, path: str) -> Response:
        if refused := reasons_against_deleting(self.resources, path):
            return refused
        concerned = [one for one in self.resources if one == path or one.startswith(f"{path}/")]
        if not concerned:
            return Response(204)
        if path.split("/")[0] in VERSIONED:
            self._remove(concerned)
            return Response(200)
        for one in concerned:
            self.resources[one]["properties"]["provisioningState"] = "Deleting"
        return self._accepted(Operation(path, lambda: self._remove(concerned), self.polls))

    def _remove(self, paths: list[str]) -> None:
        for path in paths:
            self.resources.pop(path, None)
            if self.stop_deployment is not None and "/deployments/" in path:
                self.stop_deployment(path)

    def _accepted(self, operation: Operation, body: Body | None = None, code: int = 202) -> Response:
        name = f"{operation.path.split('/')[0]}:{new_id()}"
        self.operations[name] = operation
        links = {
            word: f"https://{ARM_HOST}{OPERATIONS}{kind}/{name}?api-version=2022-02-01-preview"
            for word, kind in (("Azure-AsyncOperation", "Status"), ("Location", "Results"))
        }
        if body is not None:
            del links["Location"]
        return Response(code, body, links)

    def _operation(self, name: str, status: bool) -> Response:
        operation = self.operations.get(name)
        if operation is None:
            return missing(name)
        operation.poll()
        if status:
            body = {"id": f"{OPERATIONS}Status/{name}", "name": name, "status": operation.status, "startTime": now()}
            return Response(200, body | ({"error": operation.error} if operation.error else {}))
        if operation.status == "InProgress":
            return Response(202, None, {"Location": f"https://{ARM_HOST}{OPERATIONS}Results/{name}"})
        return Response(200, self.resources.get(operation.path))


def _maker(kind: str) -> Callable[[str, Body], Body]:
    match kind:
        case "workspaces/jobs":
            return resources.job
        case "workspaces/onlineEndpoints":
            return resources.endpoint
        case "workspaces/onlineEndpoints/deployments":
            return resources.deployment
        case "workspaces/computes":
            return resources.compute
    return lambda path, body: resources.version(path, kind, body)
