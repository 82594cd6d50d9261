"""Azure's control plane, where deployments are: another address and another token than the models themselves."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainer.backends.http import failure_of, is_failure, timeout_seconds
from trainer.backends.openai.client import address
from trainer.config.openai import OpenAIConfig
from trainer.errors import ConfigError
from trainer.extras import need

if TYPE_CHECKING:
    from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient

PUBLIC_SCOPE = "https://management.azure.com/.default"
PROVIDER = "Microsoft.CognitiveServices"


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


def known_account(settings: OpenAIConfig) -> Account | None:
    """The resource of a config that says where it is; others can train and not deploy."""
    try:
        return account_of(settings)
    except ConfigError:
        return None


def account_at(place: str) -> Account:
    """The resource that a ledger names."""
    _, _, subscription, _, group, _, _, _, name = place.split("/")
    return Account(subscription, group, name)


def connect(settings: OpenAIConfig, account: Account) -> "CognitiveServicesManagementClient":
    """The client of the control plane, which repeats nothing by itself. Raises: MissingDependency."""
    need("managing Azure resources", "azure.identity", "azure.mgmt.cognitiveservices", extra="openai")
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


def or_none(call: Callable[[], Any]) -> Any:
    """What a call answers; None where the thing does not exist."""
    try:
        return call()
    except Exception as error:
        if not is_failure(error) or failure_of(error).status != 404:
            raise
        return None
