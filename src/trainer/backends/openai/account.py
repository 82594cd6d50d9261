"""The Azure OpenAI resource on Azure's control plane: where it is, what one may do there, and its deployments.

The control plane has another address and another token than the models themselves.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainer.backends.arm import allows, read_permissions, region_name
from trainer.backends.http import Say, failure_of, found_or_none, hurried, is_failure, patiently, timeout_seconds
from trainer.backends.openai.client import address
from trainer.backends.openai.skus import Quota
from trainer.config.openai import OpenAIConfig
from trainer.errors import BackendError, ConfigError, MissingDependency
from trainer.extras import need

if TYPE_CHECKING:
    from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient

PUBLIC_SCOPE = "https://management.azure.com/.default"
PROVIDER = "Microsoft.CognitiveServices"
TRAIN = f"{PROVIDER}/accounts/OpenAI/fine-tunes/write"
DEPLOY = f"{PROVIDER}/accounts/deployments/write"
KINDS = ("OpenAI", "AIServices")


@dataclass(frozen=True, slots=True)
class Account:
    """An Azure OpenAI resource, as Azure Resource Manager names it."""

    subscription: str
    resource_group: str
    name: str

    @property
    def id(self) -> str:
        """Its place in a ledger."""
        group = f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
        return f"{group}/providers/{PROVIDER}/accounts/{self.name}"


class AccountDeployment:
    """A deployment of an account, by its name. Each method makes one call, and repeats nothing."""

    def __init__(self, settings: OpenAIConfig, account: Account, name: str) -> None:
        """Raises: MissingDependency."""
        self.name = name
        self._place = (account.resource_group, account.name, name)
        self._deployments = connect(settings, account).deployments

    def read(self) -> Any | None:
        """The deployment as Azure describes it; None where there is none."""
        return found_or_none(lambda: self._deployments.get(*self._place))

    def create(self, body: Any) -> Any:
        """Ask for it, without waiting until it answers; one that exists is changed."""
        return self._deployments.begin_create_or_update(*self._place, body, polling=False).result()

    def delete(self) -> bool:
        """Ask it to go, without waiting; False where that is refused, as it is still being made."""
        try:
            self._deployments.begin_delete(*self._place, polling=False).result()
        except Exception as error:
            if not is_failure(error) or failure_of(error).status != 409:
                raise
            return False
        return True


def account_of(settings: OpenAIConfig) -> Account:
    """The resource of a config. Raises: ConfigError, with everything that is missing."""
    subscription = settings.subscription or os.environ.get("AZURE_SUBSCRIPTION_ID")
    name = settings.account or str(urlsplit(address(settings)).hostname).partition(".")[0]
    problems = [
        f"openai.{field}: is missing, expected it for a deployment; set it, or see: az cognitiveservices account list"
        for field, value in (("subscription", subscription), ("resource_group", settings.resource_group))
        if not value
    ]
    if problems:
        raise ConfigError(*problems)
    return Account(str(subscription), str(settings.resource_group), name)


def account_at(place: str) -> Account:
    """The resource that a ledger names."""
    _, _, subscription, _, group, _, _, _, name = place.split("/")
    return Account(subscription, group, name)


def need_control_plane() -> None:
    """Raises: MissingDependency, where the control plane cannot be spoken to."""
    need("managing Azure resources", "azure.identity", "azure.mgmt.cognitiveservices", extra="openai")


def connect(settings: OpenAIConfig, account: Account) -> "CognitiveServicesManagementClient":
    """The client of the control plane, which repeats nothing by itself. Raises: MissingDependency."""
    need_control_plane()
    from azure.identity import DefaultAzureCredential
    from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient

    url, seconds = settings.management_url.rstrip("/"), timeout_seconds()
    return CognitiveServicesManagementClient(
        DefaultAzureCredential(),
        account.subscription,
        base_url=url,
        credential_scopes=[f"{url}/.default" if url.startswith("https://management.") else PUBLIC_SCOPE],
        retry_total=0,
        connection_timeout=seconds,
        read_timeout=seconds,
    )


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """Facts of the resource in a line; its region in Azure's word, None where the service gave none."""

    text: str
    region: str | None = None
    quotas: tuple[Quota, ...] = ()
    may_deploy: bool | None = None  # None where the service was not asked


def describe_account(settings: OpenAIConfig, say: Say) -> AccountFacts:
    """Region, kind and rights in a line; a resource that cannot be asked is said to be not verified.

    Raises: ConfigError, with everything that keeps a job from it.
    """
    try:
        account = account_of(settings)
    except ConfigError:
        missing = "openai.subscription and openai.resource_group are not given"
        return AccountFacts(f"region and rights not verified: {missing}")
    try:
        with hurried():
            return _described(settings, account, say)
    except (BackendError, MissingDependency) as error:
        return AccountFacts(f"region and rights not verified: {error}")


def read_quotas(settings: OpenAIConfig, account: Account, say: Say) -> tuple[str | None, tuple[Quota, ...]]:
    """The resource's region, and the quotas there; what cannot be read is said, and is not known."""
    try:
        with hurried():
            client = connect(settings, account)
            found = patiently(
                lambda: client.accounts.get(account.resource_group, account.name), "reading the resource", say
            )
    except BackendError as error:
        say(f"region and quota not verified: {error}")
        return None, ()
    region = region_name(found.location)
    return region, quotas_in(client, region, say)


def quotas_in(client: "CognitiveServicesManagementClient", region: str, say: Say) -> tuple[Quota, ...]:
    """The quotas of a region; what cannot be read is said, and is not known."""
    try:
        with hurried():
            usages = patiently(lambda: list(client.usages.list(region)), f"reading the quotas in {region}", say)
    except BackendError as error:
        say(f"quota not verified: {error}")
        return ()
    named = [(usage.name.value, usage.current_value, usage.limit) for usage in usages if usage.name is not None]
    return tuple(Quota(str(name), float(used or 0), float(limit or 0)) for name, used, limit in named)


def _described(settings: OpenAIConfig, account: Account, say: Say) -> AccountFacts:
    client, name = connect(settings, account), account.name
    from azure.identity import DefaultAzureCredential

    found = patiently(lambda: client.accounts.get(account.resource_group, name), f"reading the resource {name!r}", say)
    roles = read_permissions(
        account.id,
        f"reading your rights at {name!r}",
        DefaultAzureCredential(),
        say,
        settings.management_url.rstrip("/"),
    )
    problems = []
    if found.kind not in KINDS:
        problems.append(
            f"{name!r}: is a resource of kind {str(found.kind)!r}, expected {' or '.join(KINDS)}; choose another"
        )
    if (state := str(found.properties.provisioning_state)) != "Succeeded":
        problems.append(f"{name!r}: is in state {state!r}, expected 'Succeeded'; wait, or choose another")
    has_key = bool(os.environ.get("AZURE_OPENAI_API_KEY"))
    if has_key and found.properties.disable_local_auth:
        problems.append(f"AZURE_OPENAI_API_KEY: is set, and {name!r} takes no keys; unset it and sign in: az login")
    if not has_key and not allows(roles, TRAIN, "dataActions"):
        problems.append(
            f"{name!r}: you may not train there, expected a role with {TRAIN}; "
            "ask for Cognitive Services OpenAI Contributor or Foundry User"
        )
    if problems:
        raise ConfigError(*problems)
    may_deploy = allows(roles, DEPLOY)
    may = "and deploy" if may_deploy else f"and not deploy, which takes a role with {DEPLOY}"
    text, region = f"{name} ({found.kind}) in {found.location}; you may train {may}", region_name(found.location)
    return AccountFacts(text, region, quotas_in(client, region, say), may_deploy)
