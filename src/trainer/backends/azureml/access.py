"""Checks of access: to the datastore as the caller, to data and key vault as the job."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.backends.arm import allows, read_list, read_one, read_permissions, read_roles
from trainer.backends.azureml.datastore import container_of
from trainer.backends.azureml.workspace import Place, credential, word_of
from trainer.backends.http import Say, failure_of, found, is_failure, patiently
from trainer.config.azureml import AzureMLConfig

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

    from trainer.backends.azureml.survey import Survey

BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
WRITES_BLOBS, READS_SECRETS = f"{BLOBS}/write", "Microsoft.KeyVault/vaults/secrets/getSecret/action"
BLOB_ROLE, VAULT_ROLE = "Storage Blob Data Contributor", "Key Vault Secrets User"
RESOURCES_VERSION, VAULTS_VERSION = "2021-04-01", "2023-07-01"
# What storage answers with 403, and what helps: learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
STORAGE_REFUSALS = {
    "KeyBasedAuthenticationNotPermitted": "the storage account takes no keys, and the datastore keeps one; make the "
    "workspace's datastores identity-based, or name another datastore",
    "AuthorizationPermissionMismatch": f"you lack the role {BLOB_ROLE} on the storage account; ask its owner",
    "AuthorizationFailure": "the storage account's firewall lets this machine not in, or takes no keys; run this from "
    "a network that it lets in",
}
NO_IDENTITY = "no call tells the identity that it will have"
OTHER_REFUSAL = f"you need the role {BLOB_ROLE}, and a network that the account lets in; ask its owner"


@dataclass(frozen=True, slots=True)
class _Store:
    """A datastore of the workspace. `resource`: its container in the resource manager, where roles are given."""

    has_secret: bool
    account: str
    resource: str


@dataclass(frozen=True, slots=True)
class SecretAccess:
    """Identities that may not read a vault's secrets; `by_role`: the vault goes by roles, not by access policies."""

    by_role: bool
    lacking: list[str]


def look_at_access(settings: AzureMLConfig, seen: "Survey", client: "MLClient", place: Place, say: Say) -> None:
    """Check the datastore, the identity that the job will have, and its rights."""
    store = None
    with seen.looking_at("datastore"):
        store = _look_at_datastore(settings, seen, client, place, say)
    with seen.looking_at("identity of the job"):
        _look_at_identity(settings, store, seen, client, place, say)


def _look_at_datastore(
    settings: AzureMLConfig, seen: "Survey", client: "MLClient", place: Place, say: Say
) -> _Store | None:
    name = settings.datastore
    store: Any = found(lambda: client.datastores.get(name), f"reading the datastore {name!r}", say)
    if store is None:
        seen.refuse(
            "datastore",
            f"azureml.datastore: {name!r} was not found in the workspace; name one of its datastores",
        )
        return None
    if "blob" not in word_of(store.type).lower():
        seen.refuse(
            "datastore", f"azureml.datastore: {name!r} is {word_of(store.type)}, expected blob storage; name another"
        )
        return None
    kind = type(store.credentials).__name__.removesuffix("Configuration") if store.credentials else "None"
    has_secret = not kind.startswith("None")
    words = {"AccountKey": "an account key", "SasToken": "a shared access signature"}.get(kind, kind)
    held = f"the workspace keeps {words}" if has_secret else "none: whoever reads it needs a role of their own"
    seen.ok("datastore credential", f"{name}: {held}")
    account = f"{_group_of(place)}/providers/Microsoft.Storage/storageAccounts/{store.account_name}"
    known = str(seen.workspace.get("storageAccount") or "")
    if known.rpartition("/")[2].lower() == str(store.account_name).lower():
        account = known
    resource = f"{account}/blobServices/default/containers/{store.container_name}"
    _look_at_listing(name, seen, client, say)
    if not has_secret:
        with seen.looking_at("your upload"):
            granted = read_permissions(resource, "reading your rights on the storage account", credential(), say)
            problem = (
                f"azureml.datastore: {name!r} keeps no key, and you may not write blobs, expected the role {BLOB_ROLE} "
                f"on {store.account_name}; ask its owner"
            )
            may = allows(granted, WRITES_BLOBS, "dataActions")
            seen.judge("your upload", [] if may else [problem], "you may write blobs")
    return _Store(has_secret, str(store.account_name), resource)


def _look_at_listing(name: str, seen: "Survey", client: "MLClient", say: Say) -> None:
    """List one blob, with the credential that reads and uploads of this program use."""
    container = container_of(client, name, say)

    def listed() -> str | None:
        try:
            next(iter(container.list_blobs(name_starts_with="trainer/", results_per_page=1)), None)
        except Exception as error:
            if not is_failure(error) or (failure := failure_of(error)).status not in (403, 409):
                raise
            code = str(word_of(getattr(error, "error_code", "") or failure.code))
            return f"the storage answered {failure.status} ({code}): {STORAGE_REFUSALS.get(code, OTHER_REFUSAL)}"
        return None

    refusal = patiently(listed, f"listing a file of {name!r}", say)
    problems = [f"azureml.datastore: {name!r} cannot be listed from here: {refusal}"] if refusal else []
    seen.judge("datastore listing", problems, f"{name} answers this machine")


def _look_at_identity(
    settings: AzureMLConfig, store: _Store | None, seen: "Survey", client: "MLClient", place: Place, say: Say
) -> None:
    """Check the identity of the job, and its access to its data and to the hub token in a key vault."""
    principals = _compute_identities(settings, client, say)
    needs_own = store is not None and not store.has_secret
    where = f"the cluster {settings.compute}" if settings.compute else "a job without a cluster"
    if settings.identity == "user":
        seen.ok("identity of the job", "yours")
        if needs_own:
            seen.ok("the job's data", "read and written as you, see datastore listing and your upload")
        return
    if needs_own and settings.identity == "default":
        better = "managed" if principals else "user"
        seen.refuse(
            "identity of the job",
            "azureml.identity: is 'default', by which a job sends no identity of its own, and the datastore keeps no "
            f"key; set azureml.identity={better}",
        )
    elif settings.identity == "managed" and settings.compute and not principals:
        seen.refuse(
            "identity of the job",
            f"azureml.identity: is 'managed', and {where} has no identity, expected one; give it one, or set "
            "azureml.identity=user",
        )
    else:
        seen.ok(
            "identity of the job",
            f"the identity of {where}" if settings.identity == "managed" else "the workspace's own way: keys it keeps",
        )
    if not needs_own:
        seen.ok("the job's data", "read and written with the workspace's key")
    elif settings.identity == "managed":
        assert store is not None
        _look_at_role("the job's data", principals, WRITES_BLOBS, BLOB_ROLE, store.resource, store.account, seen, say)
    if settings.key_vault is not None:
        _look_at_vault(settings.key_vault, principals, seen, place, say)


def _look_at_role(
    what: str, principals: list[str], action: str, role: str, resource: str, name: str, seen: "Survey", say: Say
) -> None:
    """Check that every identity that the job may get has a role which allows `action` at `resource`."""
    if not principals:
        seen.unknown(what, NO_IDENTITY)
        return
    seen.judge(what, *_judgement_of_roles(_without_role(principals, action, resource, say), name, role))


def _without_role(principals: list[str], action: str, resource: str, say: Say) -> list[str]:
    """Identities without a role that allows a data action at a resource. Raises: BackendError."""
    roles = {one: read_roles(one, resource, credential(), say) for one in principals}
    return [one for one in principals if not allows(roles[one], action, "dataActions")]


def _judgement_of_roles(lacking: list[str], name: str, role: str) -> tuple[list[str], str]:
    """Problems of identities without a role on `name`, and the words where there is none."""
    problem = f"azureml.identity: {', '.join(lacking)} has no role on {name} that allows it, expected {role}"
    return [f"{problem}; ask the owner of {name}"] if lacking else [], f"{role} or more on {name}"


def _look_at_vault(address: str, principals: list[str], seen: "Survey", place: Place, say: Say) -> None:
    """Check that the job may read a secret, whichever of its identities it gets."""
    what, name = "the job's key vault", vault_name(address)
    with seen.looking_at(what):
        found = reads_secrets(address, principals, place, say)
        if found is None:
            seen.unknown(what, f"you see no vault {name} in subscription {place.subscription}")
        elif not principals:
            seen.unknown(what, NO_IDENTITY)
        elif found.by_role:
            seen.judge(what, *_judgement_of_roles(found.lacking, name, VAULT_ROLE))
        else:
            lacking = ", ".join(found.lacking)
            problem = f"azureml.key_vault: no access policy lets {lacking} get secrets; add one, or use roles"
            seen.judge(what, [problem] if lacking else [], "an access policy lets it get secrets")


def vault_name(address: str) -> str:
    """The name of a vault by its address."""
    return address.removeprefix("https://").partition(".")[0]


def reads_secrets(address: str, principals: list[str], place: Place, say: Say) -> SecretAccess | None:
    """Compare identities with the roles at a vault, or with an older vault's policies; None where it is not seen.

    Raises: BackendError.
    """
    name = vault_name(address)
    having = f"resourceType eq 'Microsoft.KeyVault/vaults' and name eq '{name}'"
    resources = f"/subscriptions/{place.subscription}/resources"
    listed = read_list(resources, RESOURCES_VERSION, f"looking for {name}", credential(), say, having=having)
    if not listed:
        return None
    vault = str(listed[0]["id"])
    about = (read_one(vault, VAULTS_VERSION, f"reading {name}", credential(), say) or {}).get("properties") or {}
    if about.get("enableRbacAuthorization", False):
        return SecretAccess(True, _without_role(principals, READS_SECRETS, vault, say))
    readers = {
        str(policy.get("objectId"))
        for policy in about.get("accessPolicies") or []
        if {"get", "all"} & {str(word).lower() for word in (policy.get("permissions") or {}).get("secrets") or []}
    }
    return SecretAccess(False, [one for one in principals if one not in readers])


def _compute_identities(settings: AzureMLConfig, client: "MLClient", say: Say) -> list[str]:
    """The principals of a cluster's identity; empty where it has none, and for a job without a cluster."""
    if settings.compute is None:
        return []
    name = settings.compute
    cluster: Any = found(lambda: client.compute.get(name), f"reading the cluster {name!r}", say)
    return list(identities_of(cluster))


def identities_of(resource: Any) -> dict[str, str | None]:
    """Client ids of the identities of a cluster or endpoint by their principals, first its own, which needs no id.

    azure-ai-ml 1.35 keeps those of user-assigned identities under the names that the service uses.
    """
    identity = getattr(resource, "identity", None)
    own = getattr(identity, "principal_id", None)
    found: dict[str, str | None] = {str(own): None} if own else {}
    for one in map(vars, getattr(identity, "user_assigned_identities", None) or []):
        if principal := one.get("principal_id") or one.get("principalId"):
            found[str(principal)] = one.get("client_id") or one.get("clientId")
    return found


def _group_of(place: Place) -> str:
    return f"/subscriptions/{place.subscription}/resourceGroups/{place.resource_group}"
