"""The control plane of an Azure OpenAI account: what it may deploy, deployments, and operations that take time."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.entra import TENANT
from tests.loopback import Request, Response
from tests.openai_service.models import ALL_SKUS, Models
from tests.openai_service.state import ACCOUNT, TARGET, Deployment, State, placed
from tests.openai_service.wire import Refused, Route

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
GROUP = "demo-group"
TARGET_SUBSCRIPTION, TARGET_GROUP, TARGET_REGION = "99999999-2222-3333-4444-555555555555", "far-group", "eastus2"
SPELLED = {"eastus2": "East US 2"}  # as accounts answer; others as they are
IDENTITY = {"type": "UserAssigned", "userAssignedIdentities": {"/subscriptions/s/copier": {"principalId": "p"}}}
CREATING_SECONDS = 3.0
DEVELOPER_SECONDS = 86_400.0
IDLE_SECONDS = 15 * 86_400.0
MOST_DEPLOYMENTS = 10


@dataclass
class Other:
    """The resource of another subscription and region. `token_is_enough`: its tenant takes the caller for a guest."""

    tenant: str = TENANT
    token_is_enough: bool = False
    kind: str = "AIServices"
    state: str = "Succeeded"
    may_deploy: bool = True
    limit: int = 250
    is_public: bool = True
    copied: set[str] = field(default_factory=set)  # models

    @property
    def id(self) -> str:
        group = f"/subscriptions/{TARGET_SUBSCRIPTION}/resourceGroups/{TARGET_GROUP}"
        return f"{group}/providers/Microsoft.CognitiveServices/accounts/{TARGET}"


class Arm:
    """Answers for the account of the jobs, and for another one.

    `fails_with` ends each new deployment; `may_deploy`: the caller's role allows it.
    """

    def __init__(self, state: State, models: Models) -> None:
        self.state, self.models = state, models
        self.fails_with: str | None = None
        self.may_deploy, self.may_train, self.is_reachable, self.local_keys = True, True, True, True
        self.limit, self.num_operations = 250, 0
        self.other, self.has_identity = Other(), True
        self.operations: dict[str, tuple[str, str]] = {}  # operation -> (deployment, "create" or "delete")

    def routes(self) -> list[Route]:
        group = "/subscriptions/<subscription>/resource[gG]roups/<group>"
        provider = "/subscriptions/<subscription>/providers/Microsoft.CognitiveServices"
        accounts = f"{group}/providers/Microsoft.CognitiveServices/accounts"
        account = f"{accounts}/<account>"
        one = f"{account}/deployments/<name>"
        return [
            Route("GET", "/subscriptions/<subscription>", self.subscription),
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
        for key, deployment in list(self.state.deployments.items()):
            if deployment.state == "Creating" and now >= deployment.ready_at:
                deployment.state = "Failed" if self.fails_with else "Succeeded"
            elif (deployment.state == "Deleting" and now >= deployment.ready_at) or self._has_ended(deployment, now):
                del self.state.deployments[key]

    def subscription(self, request: Request, subscription: str) -> Response:
        self._readable(subscription)
        tenant = self.other.tenant if subscription == TARGET_SUBSCRIPTION else TENANT
        return Response(200, {"id": request.path, "subscriptionId": subscription, "tenantId": tenant})

    def get_account(self, request: Request, account: str, **place: str) -> Response:
        self._known(account, **place)
        return Response(200, self._account(account))

    def list_accounts(self, request: Request, **place: str) -> Response:
        return Response(200, {"value": [self._account()]})

    def list_models(self, request: Request, account: str | None = None, **place: str) -> Response:
        if account:
            self._known(account, **place)
        value = []
        for model in self.models.base.values():
            name, _, version = model.id.partition("-20")
            version = f"20{version}" if version else "1"
            shown = {
                "format": model.format, "name": name, "version": version, "isDefaultVersion": True,
                "maxCapacity": 1000, "capabilities": {
                    "fineTune": str(model.lists_flags and "Standard" in model.training_types).lower(),
                    "globalFineTune": str(model.lists_flags and "GlobalStandard" in model.training_types).lower(),
                    "devTierFineTune": str(model.lists_flags and "Developer" in model.training_types).lower(),
                    "chatCompletion": str(model.is_chat).lower(),
                },
                "deprecation": {
                    name: _date(at)
                    for name, at in (("fineTune", model.tuning_ends), ("inference", model.inference_ends)) if at
                },
                "lifecycleStatus": "GenerallyAvailable", "skus": [_model_sku(sku) for sku in model.skus],
            }  # fmt: skip
            value.append(shown if account else {"model": shown, "kind": "OpenAI", "skuName": "S0"})
        return Response(200, {"value": value})

    def usages(self, request: Request, location: str = "", **place: str) -> Response:
        is_there = location == TARGET_REGION != self.state.region
        limit = self.other.limit if is_there else self.limit
        own = [each for key, each in self.state.deployments.items() if ("/" in key) == is_there]
        used = sum(deployment.body["sku"].get("capacity", 1) for deployment in own)
        value = []
        for model in self.models.base.values():
            for sku in model.skus:
                kind = "OpenAI" if model.format == "OpenAI" else "AIServices"
                name = f"{kind}.{sku}.{model.id.partition('-20')[0]}-finetune"
                value.append({
                    "name": {"value": name, "localizedValue": name}, "currentValue": float(used),
                    "limit": float(limit), "unit": "Count",
                })  # fmt: skip
        return Response(200, {"value": value})

    def permissions(self, request: Request, account: str, **place: str) -> Response:
        self._known(account, **place)
        actions = ["*"] if (self.other.may_deploy if account == TARGET else self.may_deploy) else ["*/read"]
        own = {
            "actions": actions,
            "notActions": [],
            "dataActions": ["*"] if self.may_train else [],
            "notDataActions": [],
        }
        return Response(200, {"value": [own]})

    def list(self, request: Request, account: str, **place: str) -> Response:
        self._known(account, **place)
        own = [each for key, each in self.state.deployments.items() if ("/" in key) == (account == TARGET)]
        return Response(200, {"value": [self._shown(item) for item in own]})

    def put(self, request: Request, account: str, name: str, **place: str) -> Response:
        self._known(account, **place)
        key = placed(account, name)
        if not (self.other.may_deploy if account == TARGET else self.may_deploy):
            action = "Microsoft.CognitiveServices/accounts/deployments/write"
            raise Refused(403, "AuthorizationFailed", f"The client has no authorization to perform action '{action}'.")
        body = request.json()
        model, sku = body["properties"]["model"], body["sku"]
        base = self.models.find_base(model["name"])
        is_there = account != TARGET or model["name"] in self.other.copied or self._is_source(model.get("source"))
        if base is None or not is_there:
            raise Refused(400, "DeploymentModelNotSupported", f"The model '{model['name']}' is not known here.")
        if model.get("format", "OpenAI") != base.format:
            raise Refused(500, "InternalServerError", "An internal server error occurred.")
        if sku["name"] not in base.skus:
            what = f"The specified SKU '{sku['name']}' for model '{model['name']}'"
            message = f"{what} is not supported in {self.state.region}."
            raise Refused(400, "InvalidResourceProperties", message)
        limit = self.other.limit if account == TARGET else self.limit
        if sku.get("capacity", 1) > limit:
            raise Refused(400, "InsufficientQuota", f"The capacity is above the available quota {limit}.")
        before = self.state.deployments.get(key)
        if before is None and len(self.state.deployments) >= MOST_DEPLOYMENTS:
            raise Refused(400, "QuotaExceeded", f"An account holds at most {MOST_DEPLOYMENTS} deployments.")
        if before and before.state in ("Creating", "Deleting"):
            raise Refused(409, "RequestConflict", f"Another operation is in progress on deployment '{name}'.")
        now = self.state.clock.now
        made = Deployment(key, body, before.created_at if before else now, now, ready_at=now + CREATING_SECONDS)
        self.state.deployments[key] = made
        headers = self._operation(request, key, "create")
        return Response(200 if before else 201, self._shown(made), headers)

    def get(self, request: Request, account: str, name: str, **place: str) -> Response:
        self._known(account, **place)
        return Response(200, self._shown(self._find(placed(account, name))))

    def delete(self, request: Request, account: str, name: str, **place: str) -> Response:
        self._known(account, **place)
        if (key := placed(account, name)) not in self.state.deployments:
            return Response(204)
        deployment = self.state.deployments[key]
        if deployment.state == "Creating":
            raise Refused(409, "RequestConflict", f"Another operation is in progress on deployment '{name}'.")
        if deployment.state != "Deleting":
            deployment.state, deployment.ready_at = "Deleting", self.state.clock.now + CREATING_SECONDS
        headers = self._operation(request, key, "delete")
        return Response(202, None, headers | {"Location": headers["Azure-AsyncOperation"]})

    def skus(self, request: Request, account: str, name: str, **place: str) -> Response:
        self._known(account, **place)
        base = self.models.find_base(self._find(placed(account, name)).model)
        value = [{"resourceType": "Microsoft.CognitiveServices/accounts/deployments", "sku": {"name": sku}}
                 for sku in (ALL_SKUS if base is None else base.skus)]  # fmt: skip
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
        path = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.CognitiveServices/locations/{self.state.region}"
        version = request.query.get("api-version", "")
        url = f"https://{request.host}{path}/operations/{operation}?api-version={version}"
        return {"Azure-AsyncOperation": url, "Retry-After": "0"}

    def _is_source(self, source: str | None) -> bool:
        return source is not None and source.lower() == str(self._account(ACCOUNT)["id"]).lower()

    def _readable(self, subscription: str) -> None:
        other = self.other
        if subscription == TARGET_SUBSCRIPTION and other.tenant != TENANT and not other.token_is_enough:
            message = f"The access token is from the wrong issuer. It must match the tenant '{other.tenant}'."
            raise Refused(401, "InvalidAuthenticationTokenTenant", message)

    def _known(self, account: str, subscription: str = "", group: str = "", **place: str) -> None:
        self._readable(subscription)
        where = (TARGET_SUBSCRIPTION, TARGET_GROUP) if account == TARGET else (SUBSCRIPTION, GROUP)
        if account not in (ACCOUNT, TARGET) or (subscription, group) != where:
            message = f"The Resource 'Microsoft.CognitiveServices/accounts/{account}' was not found."
            raise Refused(404, "ResourceNotFound", message)

    def _find(self, name: str) -> Deployment:
        if name not in self.state.deployments:
            raise Refused(404, "ResourceNotFound", f"The Resource 'deployments/{name}' was not found.")
        return self.state.deployments[name]

    def _account(self, account: str = ACCOUNT) -> dict[str, Any]:
        return self._other() if account == TARGET else self._own()

    def _other(self) -> dict[str, Any]:
        return {
            "id": self.other.id, "name": TARGET, "type": "Microsoft.CognitiveServices/accounts",
            "kind": self.other.kind, "location": SPELLED[TARGET_REGION], "sku": {"name": "S0"},
            "properties": {
                "provisioningState": self.other.state, "endpoint": f"https://{TARGET}.cognitiveservices.azure.com/",
                "endpoints": {"OpenAI Language Model Instance API": f"https://{TARGET}.openai.azure.com/"},
                "customSubDomainName": TARGET, "disableLocalAuth": False,
                "publicNetworkAccess": "Enabled" if self.other.is_public else "Disabled",
            },
        }  # fmt: skip

    def _own(self) -> dict[str, Any]:
        return {
            "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/"
            f"Microsoft.CognitiveServices/accounts/{ACCOUNT}",
            "name": ACCOUNT, "type": "Microsoft.CognitiveServices/accounts", "kind": "OpenAI",
            "location": SPELLED.get(self.state.region, self.state.region),
            "sku": {"name": "S0"}, "identity": IDENTITY if self.has_identity else None,
            "properties": {
                "provisioningState": "Succeeded", "endpoint": f"https://{ACCOUNT}.openai.azure.com/",
                "customSubDomainName": ACCOUNT, "publicNetworkAccess": "Enabled",
                "disableLocalAuth": not self.local_keys,
            },
        }  # fmt: skip

    def _shown(self, deployment: Deployment) -> dict[str, Any]:
        where, _, name = deployment.name.rpartition("/")
        account = self._account(where or ACCOUNT)["id"]
        own = {"provisioningState": deployment.state, "currentCapacity": deployment.body["sku"].get("capacity", 1)}
        return {
            "id": f"{account}/deployments/{name}", "name": name,
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
