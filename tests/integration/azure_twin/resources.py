"""What the service adds to a resource that it was asked to create, by kind."""

from typing import Any

from tests.integration.azure_twin.world import (
    ACCOUNT,
    ARTIFACTS,
    GROUP_ID,
    PLANE_HOST,
    PROVIDER,
    REGION,
    SUBSCRIPTION,
    WORKSPACE,
    WORKSPACE_ID,
    new_id,
    system_data,
)

Body = dict[str, Any]
SUBSCRIPTION_IN_URI = f"azureml://subscriptions/{SUBSCRIPTION}/resourcegroups/{GROUP_ID.rsplit('/', 1)[1]}"


def resource(path: str, of_type: str, properties: Body, **others: Any) -> Body:
    """The envelope; `path` is relative to the workspace."""
    return {
        "id": f"{WORKSPACE_ID}/{path}", "name": path.rsplit("/", 1)[1],
        "type": f"{PROVIDER}/{of_type}", "properties": properties, "systemData": system_data(),
    } | {name: value for name, value in others.items() if value is not None}  # fmt: skip


def workspace() -> Body:
    others = "Microsoft.Storage/storageAccounts", "Microsoft.KeyVault/vaults", "Microsoft.Insights/components"
    storage, vault, insights = (f"{GROUP_ID}/providers/{one}/{ACCOUNT}" for one in others)
    return {
        "id": WORKSPACE_ID, "name": WORKSPACE, "type": f"{PROVIDER}/workspaces", "location": REGION, "tags": {},
        "kind": "Default", "sku": {"name": "Basic", "tier": "Basic"}, "systemData": system_data(),
        "identity": {"type": "SystemAssigned", "principalId": new_id(), "tenantId": new_id()},
        "properties": {
            "workspaceId": new_id(), "friendlyName": WORKSPACE, "storageAccount": storage, "keyVault": vault,
            "applicationInsights": insights, "hbiWorkspace": False, "publicNetworkAccess": "Enabled",
            "discoveryUrl": f"https://{PLANE_HOST}/discovery", "provisioningState": "Succeeded",
            "mlFlowTrackingUri": f"azureml://{PLANE_HOST}/mlflow/v1.0{WORKSPACE_ID}",
            "systemDatastoresAuthMode": "accessKey", "v1LegacyMode": False,
        },
    }  # fmt: skip


def datastore(name: str, container: str, identity: bool) -> Body:
    """A blob datastore, with a key or, where `identity`, to be reached with the caller's own rights."""
    properties = {
        "datastoreType": "AzureBlob", "accountName": ACCOUNT, "containerName": container, "protocol": "https",
        "endpoint": "core.windows.net", "isDefault": name == "workspaceblobstore", "properties": {}, "tags": {},
        "credentials": {"credentialsType": "None" if identity else "AccountKey"},
        "serviceDataAccessAuthIdentity": "None", "resourceGroup": GROUP_ID.rsplit("/", 1)[1],
        "subscriptionId": SUBSCRIPTION,
    }  # fmt: skip
    return resource(f"datastores/{name}", "workspaces/datastores", properties)


def version(path: str, kind: str, body: Body) -> Body:
    """A version of code, an environment, data or a model."""
    properties: Body = {"isAnonymous": False, "isArchived": False, "properties": {}, "tags": {}}
    properties |= {name: value for name, value in body["properties"].items() if value is not None}
    if kind.endswith("models/versions"):
        properties.setdefault("flavors", {})  # without it the SDK's own reader fails
    if kind.endswith("environments/versions"):
        properties.setdefault("environmentType", "UserCreated")
        properties.setdefault("osType", "Linux")
    if not kind.endswith("data/versions"):
        properties["provisioningState"] = "Succeeded"
    return resource(path, kind, properties)


def container(path: str, kind: str, versions: list[Body]) -> Body:
    """What holds the versions of a name."""
    latest = versions[-1]["name"]
    upcoming = str(int(latest) + 1) if latest.isdigit() else "1"
    properties = {"isArchived": False, "latestVersion": latest, "nextVersion": upcoming, "properties": {}, "tags": {}}
    if kind.endswith("data"):
        properties["dataType"] = versions[-1]["properties"]["dataType"]
    return resource(path, kind, properties)


def job(path: str, body: Body) -> Body:
    name = path.rsplit("/", 1)[1]
    properties: Body = {"experimentName": "Default", "displayName": name, "isArchived": False, "tags": {}}
    properties |= {key: value for key, value in body["properties"].items() if value is not None}
    properties["properties"] = {"_azureml.ComputeTargetType": "amlctrain"} | properties.get("properties", {})
    studio = f"https://ml.azure.com/runs/{name}?wsid={WORKSPACE_ID}"
    tracking = f"azureml://{PLANE_HOST}/mlflow/v1.0{WORKSPACE_ID}"
    properties["services"] = {
        "Studio": {"endpoint": studio, "jobServiceType": "Studio"},
        "Tracking": {"endpoint": tracking, "jobServiceType": "Tracking"},
    } | properties.get("services", {})
    properties["status"] = "NotStarted"
    outputs = {
        key: {"mode": "ReadWriteMount"} | one | {"uri": one.get("uri") or _default_output(name, key)}
        for key, one in (properties.get("outputs") or {}).items()
    }
    own = {"jobOutputType": "uri_folder", "mode": "ReadWriteMount"}
    own["uri"] = f"azureml://datastores/workspaceartifactstore/ExperimentRun/dcid.{name}"
    properties["outputs"] = {"default": own} | outputs
    return resource(path, "workspaces/jobs", properties)


def _default_output(name: str, key: str) -> str:
    return f"azureml://datastores/workspaceblobstore/paths/azureml/{name}/{key}/"


def endpoint(path: str, body: Body) -> Body:
    name = path.rsplit("/", 1)[1]
    host = f"https://{name}.{REGION}.inference.ml.azure.com"
    properties: Body = {"traffic": {}, "mirrorTraffic": {}, "properties": {}, "publicNetworkAccess": "Enabled"}
    properties |= {key: value for key, value in body["properties"].items() if value is not None and key != "keys"}
    properties |= {"scoringUri": f"{host}/score", "swaggerUri": f"{host}/swagger.json", "provisioningState": "Creating"}
    identity = {"type": "SystemAssigned", "principalId": new_id(), "tenantId": new_id()}
    return resource(
        path, "workspaces/onlineEndpoints", properties,
        location=body["location"], tags=body.get("tags") or {}, identity=identity, kind="Managed",
    )  # fmt: skip


def deployment(path: str, body: Body) -> Body:
    properties: Body = {"scaleSettings": {"scaleType": "Default"}, "appInsightsEnabled": False, "properties": {}}
    properties |= {key: value for key, value in body["properties"].items() if value is not None}
    properties["provisioningState"] = "Creating"
    return resource(
        path, "workspaces/onlineEndpoints/deployments", properties,
        location=body["location"], tags=body.get("tags") or {}, sku=body.get("sku"), kind="Managed",
    )  # fmt: skip


def compute(path: str, body: Body) -> Body:
    given = {key: value for key, value in body["properties"].items() if value is not None}
    own = given.get("properties") or {}
    nodes = {"idleNodeCount": 0, "leavingNodeCount": 0, "preemptedNodeCount": 0, "preparingNodeCount": 0}
    own = {"allocationState": "Steady", "currentNodeCount": 0, "targetNodeCount": 0, "osType": "Linux"} | own
    own["nodeStateCounts"] = nodes | {"runningNodeCount": 0, "unusableNodeCount": 0}
    given |= {"computeLocation": REGION, "provisioningState": "Creating", "properties": own, "isAttachedCompute": False}
    return resource(path, "workspaces/computes", given, location=body.get("location") or REGION, tags=body.get("tags"))


CONTAINERS = {"workspaceblobstore": "azureml-blobstore", "workspaceartifactstore": ARTIFACTS}
CLOUD = {
    "name": "AzureCloud", "portal": "https://portal.azure.com", "resourceManager": "https://management.azure.com/",
    "authentication": {
        "loginEndpoint": "https://login.microsoftonline.com/", "tenant": "common", "identityProvider": "AAD",
        "audiences": ["https://management.core.windows.net/", "https://management.azure.com/"],
    },
    "suffixes": {"storage": "core.windows.net", "keyVaultDns": "vault.azure.net"},
}  # fmt: skip
