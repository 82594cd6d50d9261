"""The control plane of an Azure OpenAI account: what it may deploy, deployments, and operations that take time."""

from datetime import UTC, datetime
from typing import Any

from tests.loopback import Request, Response
from tests.openai_service.models import Models
from tests.openai_service.state import Deployment, State
from tests.openai_service.wire import Refused, Route

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
GROUP, ACCOUNT, REGION = "demo-group", "demo-openai", "swedencentral"
SKUS = ("Standard", "GlobalStandard", "DeveloperTier", "DataZoneStandard")
CREATING_SECONDS = 3.0
DEVELOPER_SECONDS = 86_400.0
IDLE_SECONDS = 15 * 86_400.0
MOST_DEPLOYMENTS = 10


class Arm:
    """Answers for one account. `fails_with` ends each new deployment; `may_deploy`: the caller's role allows it."""

    def __init__(self, state: State, models: Models) -> None:
        self.state, self.models = state, models
        self.fails_with: str | None = None
        self.may_deploy, self.may_train, self.is_reachable, self.local_keys = True, True, True, True
        self.limit, self.num_operations = 250, 0
        self.operations: dict[str, tuple[str, str]] = {}  # operation -> (deployment, "create" or "delete")

    def routes(self) -> list[Route]:
        group = "/subscriptions/<subscription>/resource[gG]roups/<group>"
        provider = "/subscriptions/<subscription>/providers/Microsoft.CognitiveServices"
        accounts = f"{group}/providers/Microsoft.CognitiveServices/accounts"
        account = f"{accounts}/<account>"
        one = f"{account}/deployments/<name>"
        return [
            Route("GET", accounts, self.list_accounts),
            Route("GET", f"{provider}/accounts", self.list_accounts),
            Route("GET", account, self.get_account),
            Route("GET", f"{account}/models", self.list_models),
            Route("GET", f"{account}/usages", self.usages),
            Route("GET", f"{provider}/locations/<location>/models", self.list_models),
            Route("GET", f"{provider}/locations/<location>/usages", self.usages),
            Route("GET", f"{provider}/locations/<location>/operations/<operation>", self.operation),
            Route("GET", f"{account}/providers/Microsoft.Authorization/permissions", self.permissions),
            Route("GET", f"{account}/deployments", self.list),
            Route("PUT", one, self.put),
            Route("GET", one, self.get),
            Route("DELETE", one, self.delete),
            Route("GET", f"{one}/skus", self.skus),
        ]

    def advance(self) -> None:
        """Let deployments become ready, and remove those that the service removes by itself."""
        now = self.state.clock.now
        for deployment in list(self.state.deployments.values()):
            if deployment.state == "Creating" and now >= deployment.ready_at:
                deployment.state = "Failed" if self.fails_with else "Succeeded"
            elif (deployment.state == "Deleting" and now >= deployment.ready_at) or self._has_ended(deployment, now):
                del self.state.deployments[deployment.name]

    def get_account(self, request: Request, account: str, **place: str) -> Response:
        self._known(account)
        return Response(200, self._account())

    def list_accounts(self, request: Request, **place: str) -> Response:
        return Response(200, {"value": [self._account()]})

    def list_models(self, request: Request, account: str | None = None, **place: str) -> Response:
        if account:
            self._known(account)
        value = []
        for model in self.models.base.values():
            name, _, version = model.id.partition("-20")
            version = f"20{version}" if version else "1"
            shown = {
                "format": "OpenAI", "name": name, "version": version, "isDefaultVersion": True, "maxCapacity": 1000,
                "capabilities": {"fineTune": str(model.can_be_tuned).lower(), "chatCompletion": "true"},
                "deprecation": {"fineTune": _date(model.tuning_ends), "inference": _date(model.inference_ends)},
                "lifecycleStatus": "GenerallyAvailable", "skus": [_model_sku(sku) for sku in SKUS],
            }  # fmt: skip
            value.append(shown if account else {"model": shown, "kind": "OpenAI", "skuName": "S0"})
        return Response(200, {"value": value})

    def usages(self, request: Request, **place: str) -> Response:
        used = sum(deployment.body["sku"].get("capacity", 1) for deployment in self.state.deployments.values())
        value = []
        for sku in SKUS:
            for model in self.models.base:
                name = f"OpenAI.{sku}.{model.partition('-20')[0]}-finetune"
                value.append({
                    "name": {"value": name, "localizedValue": name}, "currentValue": float(used),
                    "limit": float(self.limit), "unit": "Count",
                })  # fmt: skip
        return Response(200, {"value": value})

    def permissions(self, request: Request, account: str, **place: str) -> Response:
        self._known(account)
        actions = ["*"] if self.may_deploy else ["*/read"]
        own = {
            "actions": actions,
            "notActions": [],
            "dataActions": ["*"] if self.may_train else [],
            "notDataActions": [],
        }
        return Response(200, {"value": [own]})

    def list(self, request: Request, account: str, **place: str) -> Response:
        self._known(account)
        return Response(200, {"value": [self._shown(item) for item in self.state.deployments.values()]})

    def put(self, request: Request, account: str, name: str, **place: str) -> Response:
        self._known(account)
        if not self.may_deploy:
            action = "Microsoft.CognitiveServices/accounts/deployments/write"
            raise Refused(403, "AuthorizationFailed", f"The client has no authorization to perform action '{action}'.")
        body = request.json()
        model, sku = body["properties"]["model"], body["sku"]
        if model["name"] not in self.state.models and self.models.find_base(model["name"]) is None:
            raise Refused(400, "DeploymentModelNotSupported", f"The model '{model['name']}' is not known here.")
        if sku["name"] not in SKUS:
            raise Refused(400, "InvalidResourceProperties", f"The specified SKU '{sku['name']}' is invalid.")
        if sku.get("capacity", 1) > self.limit:
            raise Refused(400, "InsufficientQuota", f"The capacity is above the available quota {self.limit}.")
        before = self.state.deployments.get(name)
        if before is None and len(self.state.deployments) >= MOST_DEPLOYMENTS:
            raise Refused(400, "QuotaExceeded", f"An account holds at most {MOST_DEPLOYMENTS} deployments.")
        if before and before.state in ("Creating", "Deleting"):
            raise Refused(409, "RequestConflict", f"Another operation is in progress on deployment '{name}'.")
        now = self.state.clock.now
        made = Deployment(name, body, before.created_at if before else now, now, ready_at=now + CREATING_SECONDS)
        self.state.deployments[name] = made
        headers = self._operation(request, name, "create")
        return Response(200 if before else 201, self._shown(made), headers)

    def get(self, request: Request, account: str, name: str, **place: str) -> Response:
        self._known(account)
        return Response(200, self._shown(self._find(name)))

    def delete(self, request: Request, account: str, name: str, **place: str) -> Response:
        self._known(account)
        if name not in self.state.deployments:
            return Response(204)
        deployment = self.state.deployments[name]
        if deployment.state == "Creating":
            raise Refused(409, "RequestConflict", f"Another operation is in progress on deployment '{name}'.")
        if deployment.state != "Deleting":
            deployment.state, deployment.ready_at = "Deleting", self.state.clock.now + CREATING_SECONDS
        headers = self._operation(request, name, "delete")
        return Response(202, None, headers | {"Location": headers["Azure-AsyncOperation"]})

    def skus(self, request: Request, account: str, name: str, **place: str) -> Response:
        self._known(account)
        self._find(name)
        value = [{"resourceType": "Microsoft.CognitiveServices/accounts/deployments", "sku": {"name": sku}}
                 for sku in SKUS]  # fmt: skip
        return Response(200, {"value": value})

    def operation(self, request: Request, operation: str, **place: str) -> Response:
        if operation not in self.operations:
            raise Refused(404, "NotFound", f"The operation '{operation}' is not known.")
        name, doing = self.operations[operation]
        found = self.state.deployments.get(name)
        if doing == "delete":
            status = "InProgress" if found and found.state == "Deleting" else "Succeeded"
        else:
            status = "Canceled" if found is None else {"Creating": "InProgress"}.get(found.state, found.state)
        body: dict[str, Any] = {"id": request.path, "name": operation, "status": status}
        if status == "Failed":
            body["error"] = {"code": "DeploymentFailed", "message": self.fails_with}
        return Response(200, body, {"Retry-After": "0"} if status == "InProgress" else {})

    def _operation(self, request: Request, name: str, doing: str) -> dict[str, str]:
        self.num_operations += 1
        operation = f"00000000-0000-0000-0000-{self.num_operations:012}"
        self.operations[operation] = (name, doing)
        path = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.CognitiveServices/locations/{REGION}"
        version = request.query.get("api-version", "")
        url = f"https://{request.host}{path}/operations/{operation}?api-version={version}"
        return {"Azure-AsyncOperation": url, "Retry-After": "0"}

    def _known(self, account: str) -> None:
        if account != ACCOUNT:
            message = f"The Resource 'Microsoft.CognitiveServices/accounts/{account}' was not found."
            raise Refused(404, "ResourceNotFound", message)

    def _find(self, name: str) -> Deployment:
        if name not in self.state.deployments:
            raise Refused(404, "ResourceNotFound", f"The Resource 'deployments/{name}' was not found.")
        return self.state.deployments[name]

    def _account(self) -> dict[str, Any]:
        return {
            "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/"
            f"Microsoft.CognitiveServices/accounts/{ACCOUNT}",
            "name": ACCOUNT, "type": "Microsoft.CognitiveServices/accounts", "kind": "OpenAI", "location": REGION,
            "sku": {"name": "S0"},
            "properties": {
                "provisioningState": "Succeeded", "endpoint": f"https://{ACCOUNT}.openai.azure.com/",
                "customSubDomainName": ACCOUNT, "publicNetworkAccess": "Enabled",
                "disableLocalAuth": not self.local_keys,
            },
        }  # fmt: skip

    def _shown(self, deployment: Deployment) -> dict[str, Any]:
        account = self._account()["id"]
        own = {"provisioningState": deployment.state, "currentCapacity": deployment.body["sku"].get("capacity", 1)}
        return {
            "id": f"{account}/deployments/{deployment.name}", "name": deployment.name,
            "type": "Microsoft.CognitiveServices/accounts/deployments", "sku": deployment.body["sku"],
            "tags": deployment.body.get("tags"), "properties": deployment.body["properties"] | own,
            "systemData": {"createdAt": datetime.fromtimestamp(deployment.created_at, UTC).isoformat()},
        }  # fmt: skip

    def _has_ended(self, deployment: Deployment, now: float) -> bool:
        is_tuned = deployment.model in self.state.models
        developer = deployment.body["sku"]["name"] == "DeveloperTier"
        if developer and now > deployment.created_at + DEVELOPER_SECONDS:
            return True
        return is_tuned and deployment.state == "Succeeded" and now > deployment.used_at + IDLE_SECONDS


def _model_sku(name: str) -> dict[str, Any]:
    return {"name": name, "usageName": f"OpenAI.{name}", "capacity": {"minimum": 1, "maximum": 1000, "step": 1}}


def _date(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
