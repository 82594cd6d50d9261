"""The resource that a deployment is made in: the run's own, or one of another region or subscription."""

import re
from dataclasses import dataclass, replace
from typing import Any

from trainer.backends.arm import allows, read_one, read_permissions, region_name
from trainer.backends.contract import DeploymentOptions
from trainer.backends.http import Say, failure_of, found
from trainer.backends.openai.account import (
    DEPLOY,
    KINDS,
    PROVIDER,
    Account,
    account_of,
    connect,
    quotas_in,
    read_quotas,
)
from trainer.backends.openai.catalog import find_in_catalog
from trainer.backends.openai.client import address
from trainer.backends.openai.offer import Claim, Offer, held
from trainer.backends.openai.price_list import RegionPrices, list_region
from trainer.backends.openai.skus import Quota
from trainer.config.openai import OpenAIConfig
from trainer.config.schema import RunConfig
from trainer.errors import BackendError, ConfigError, quoted
from trainer.runs import Run

SUBSCRIPTIONS = "2022-12-01"  # the version of Microsoft.Resources
OTHER_TENANT = "InvalidAuthenticationTokenTenant"
OPENAI_API = "OpenAI Language Model Instance API"  # the name of its address among those of a resource
PART = re.compile(r"[\w.()-]+")


@dataclass(frozen=True, slots=True)
class Site:
    """A resource's region, its quotas, and the price list for it; the region is None where it is not known.

    `source`, which has trained the model, and `url`, of the API, are those of a resource that is not the run's own.
    """

    account: Account
    region: str | None
    quotas: tuple[Quota, ...]
    listed: RegionPrices | None
    source: Account | None = None
    url: str = ""
    resource: Any = None  # as the control plane describes it
    source_resource: Any = None

    def judge_region(self, settings: OpenAIConfig, family: str) -> Offer:
        """Compare table and quotas on tuned models of the family in another region. Raises: ConfigError."""
        row = find_in_catalog(family)
        if self.source is None or row is None or self.region is None:
            return Offer()
        regions = {*row.global_regions, *row.standard_regions} - {*row.not_in}
        source = row.sources["training_types"]
        table = Claim(self.region in regions, f"the table has {family} tuned in other regions alone ({source})")
        own = [quota for quota in self.quotas if quota.is_of(family) and quota.limit > 0]
        service = Claim(True, f"the service has a quota for {own[0].name}") if own else Claim(None)
        return held("--resource", settings, f"a tuned {family} in {self.region}", table, service)


def find_site(run: Run, settings: RunConfig, options: DeploymentOptions, say: Say) -> Site:
    """The site of a run's deployment, asked for what decides about it. Raises: ConfigError, BackendError."""
    here = account_of(settings.openai)
    is_own = address(run.config().openai) == address(settings.openai)
    source = here if is_own else account_of(run.config().openai)
    target = here if options.resource is None else account_named(options.resource, here)
    if target.id.lower() == source.id.lower():
        region, quotas = read_quotas(settings.openai, here, say)
        return Site(here, region, quotas, list_region(settings.openai, region))
    return read_other(settings.openai, source, target, say)


def account_named(text: str, beside: Account) -> Account:
    """The resource of [[SUBSCRIPTION/]GROUP/]ACCOUNT, or of a resource id; what is absent is that of `beside`.

    Raises: ConfigError.
    """
    words = text.strip("/").split("/")
    if len(words) == 8 and [word.lower() for word in words[::2]] == [
        "subscriptions", "resourcegroups", "providers", "accounts"
    ] and words[5].lower() == PROVIDER.lower():  # fmt: skip
        words = [words[1], words[3], words[7]]
    if len(words) > 3 or not all(PART.fullmatch(word) for word in words):
        raise ConfigError(
            f"--resource: is {quoted(text)}, expected ACCOUNT, GROUP/ACCOUNT, SUBSCRIPTION/GROUP/ACCOUNT or a resource "
            "id; see: az cognitiveservices account list"
        )
    given = dict(zip(("name", "resource_group", "subscription"), reversed(words), strict=False))
    return replace(beside, **given)


def read_other(settings: OpenAIConfig, source: Account, target: Account, say: Say) -> Site:
    """Ask another resource for all that a deployment of the model needs there.

    Raises: ConfigError, with everything that stands in the way; BackendError.
    """
    resource = _resource(settings, source, target, say)
    _refuse_tenants(settings, source, target, say)
    problems = []
    if resource.kind not in KINDS:
        problems.append(f"is a resource of kind {str(resource.kind)!r}, expected {' or '.join(KINDS)}; name another")
    if (state := str(resource.properties.provisioning_state)) != "Succeeded":
        problems.append(f"is in state {state!r}, expected 'Succeeded'; wait, or name another")
    if not allows(_roles(settings, target, say), DEPLOY):
        problems.append(f"you may not deploy there, expected a role with {DEPLOY}; ask for it")
    if problems:
        raise ConfigError(*(f"--resource: {target.name!r}: {problem}" for problem in problems))
    if (trained := _read(settings, source, say)) is None:
        raise ConfigError(
            f"openai.account: {source.name!r}, which has trained the model, is not found, expected it in "
            f"{source.resource_group!r} of {source.subscription}; correct openai.resource_group or openai.account"
        )
    region = region_name(resource.location)
    quotas = quotas_in(connect(settings, target), region, say)
    return Site(target, region, quotas, list_region(settings, region), source, url_of(resource), resource, trained)


def url_of(resource: Any) -> str:
    """The address of a resource's API, as the resource tells it."""
    told = getattr(resource.properties, "endpoints", None) or {}
    return str(told.get(OPENAI_API) or resource.properties.endpoint).rstrip("/")


def _resource(settings: OpenAIConfig, source: Account, target: Account, say: Say) -> Any:
    try:
        resource = _read(settings, target, say)
    except BackendError as error:
        cause = error.__cause__
        if isinstance(cause, Exception) and OTHER_TENANT in str(failure_of(cause)):
            raise _other_tenant(source, target) from error
        raise
    if resource is None:
        raise ConfigError(
            f"--resource: {target.name!r} is not found in {target.resource_group!r} of {target.subscription}, expected "
            "an existing resource; see: az cognitiveservices account list"
        )
    return resource


def _read(settings: OpenAIConfig, account: Account, say: Say) -> Any | None:
    accounts = connect(settings, account).accounts
    return found(
        lambda: accounts.get(account.resource_group, account.name), f"reading the resource {account.name!r}", say
    )


def _refuse_tenants(settings: OpenAIConfig, source: Account, target: Account, say: Say) -> None:
    """Raises: ConfigError, where a guest's token reads both, which are of two tenants all the same."""
    if source.subscription.lower() == target.subscription.lower():
        return
    tenants = {_tenant(settings, each.subscription, say) for each in (source, target)}
    if len(tenants - {None}) > 1:
        raise _other_tenant(source, target)


def _tenant(settings: OpenAIConfig, subscription: str, say: Say) -> str | None:
    from azure.identity import DefaultAzureCredential

    doing, arm = f"reading the subscription {subscription}", settings.management_url.rstrip("/")
    read = read_one(f"/subscriptions/{subscription}", SUBSCRIPTIONS, doing, DefaultAzureCredential(), say, arm)
    return None if read is None else str(read.get("tenantId"))


def _roles(settings: OpenAIConfig, account: Account, say: Say) -> list[dict[str, Any]]:
    from azure.identity import DefaultAzureCredential

    doing, arm = f"reading your rights at {account.name!r}", settings.management_url.rstrip("/")
    return read_permissions(account.id, doing, DefaultAzureCredential(), say, arm)


def _other_tenant(source: Account, target: Account) -> ConfigError:
    return ConfigError(
        f"--resource: {target.name!r} is in another tenant than {source.name!r}, expected the same one: between "
        "tenants Azure wants an auxiliary token of the other, which this trainer does not get; name another resource"
    )
