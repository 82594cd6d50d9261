"""SKUs of deployments: those of a model in a region, by the table and by the quota that the service has for each."""

from collections.abc import Iterable
from dataclasses import dataclass

from trainer.backends.openai.catalog import CatalogModel, data_zone_regions, family_of
from trainer.backends.openai.offer import Claim, Offer, held
from trainer.config.openai import OpenAIConfig
from trainer.errors import ConfigError

SKUS = {  # our words, and Azure Resource Manager's
    "developer": "DeveloperTier",
    "standard": "Standard",
    "global-standard": "GlobalStandard",
    "data-zone": "DataZoneStandard",
}
UNKNOWN_CAPACITY = 50  # thousands of tokens a minute, for a model that the table lacks


@dataclass(frozen=True, slots=True)
class Quota:
    """Thousands of tokens a minute of tuned models, for one SKU of one model in one region."""

    name: str  # OpenAI.GlobalStandard.gpt-4.1-mini-finetune
    used: float
    limit: float

    @property
    def free(self) -> float:
        return max(0.0, self.limit - self.used)

    def is_of(self, family: str, sku: str | None = None) -> bool:
        """True for tuned models of a family; base models have other quotas."""
        _, found, model = self.name.partition("." if sku is None else f".{sku}.")
        model = model.partition(".")[2] if sku is None else model
        return bool(found) and model.endswith("-finetune") and family_of(model.removesuffix("-finetune")) == family


def usual_sku(row: CatalogModel | None, region: str | None) -> str:
    """The SKU of a deployment that names none: the first of the table that is in the region.

    Raises: ConfigError, for a model that nothing here deploys, or not in that region.
    """
    if row is None:
        return "developer"
    if (found := _first_sku(row, region)) is not None:
        return found
    if not row.skus:
        raise ConfigError(
            f"--sku: {_served_elsewhere(row)}, expected another model; deploy this one in Foundry's portal"
        )
    raise ConfigError(
        f"--sku: {_not_there(row, region)}, expected a region that has one; deploy it in a resource there, or name a "
        "SKU and set openai.trust to service"
    )


def judge_sku(
    settings: OpenAIConfig, model: str, row: CatalogModel | None, sku: str, region: str | None, quota: Quota | None
) -> Offer:
    """Compare the table with the quotas, before anything is made. Raises: ConfigError, as `judge` does."""
    where = "" if region is None else f" in {region}"
    return held(
        "--sku", settings, f"{model} deployed as {sku}{where}", _table_claim(row, sku, region), _quota_claim(quota)
    )


def outlook(row: CatalogModel | None, region: str | None, quotas: Iterable[Quota]) -> tuple[str, str] | None:
    """A line of a run's plan: the deployment of its model, or a warning that there is none; None where nobody knows."""
    if row is None:
        return None
    if not row.skus:
        return "warning", f"{_served_elsewhere(row)}: this trainer could tune it and not deploy it"
    if (word := _first_sku(row, region)) is None:
        return "warning", f"{_not_there(row, region)}: it could be tuned and not deployed"
    sku = SKUS[word]
    quota = find_quota(quotas, sku, row.name)
    if quota is not None and quota.free < row.capacity:
        return "warning", (
            f"a deployment of it asks for {row.capacity},000 tokens a minute, and {quota.free:,.0f},000 of the "
            f"{quota.limit:,.0f},000 of {quota.name} are free: it could be tuned and not deployed"
        )
    others = [each for each in row.skus if each != sku and _is_in(row, each, region)]
    return "deploys as", f"{sku}, {row.capacity},000 tokens a minute" + (
        f"; also {', '.join(others)}" if others else ""
    )


def hold_quota(capacity: int, quota: Quota | None) -> None:
    """Raises: ConfigError, where less is free than the deployment asks for."""
    if quota is not None and quota.limit > 0 and capacity > quota.free:
        raise ConfigError(
            f"--capacity: is {capacity}, expected at most {quota.free:,.0f}, which is free of the "
            f"{quota.limit:,.0f} of {quota.name}; ask for less, delete deployments, or request more quota"
        )


def find_quota(quotas: Iterable[Quota], sku: str, family: str) -> Quota | None:
    """The quota for tuned models of a family."""
    return next((quota for quota in quotas if quota.is_of(family, sku)), None)


def _first_sku(row: CatalogModel, region: str | None) -> str | None:
    """The first of the table's SKUs that is in the region, in our word."""
    words = {name: word for word, name in SKUS.items()}
    return next((words[sku] for sku in row.skus if sku in words and _is_in(row, sku, region)), None)


def _not_there(row: CatalogModel, region: str | None) -> str:
    return f"the table has {row.name} deployed as {', '.join(row.skus)}, and none of it in {region}"


def _served_elsewhere(row: CatalogModel) -> str:
    return f"the table has {row.name} on managed compute and Fireworks alone ({row.sources['methods']})"


def _is_in(row: CatalogModel, sku: str, region: str | None) -> bool:
    match sku:
        case _ if region is None:
            return True
        case "Standard":
            return region in row.standard_deployments
        case "DataZoneStandard":
            return region in data_zone_regions()
    return True


def _table_claim(row: CatalogModel | None, sku: str, region: str | None) -> Claim:
    if row is None:
        return Claim(None)
    source = row.sources.get("skus", row.sources["methods"])
    if sku not in row.skus:
        return Claim(False, f"the table has {', '.join(row.skus) or 'none'} ({source})")
    if not _is_in(row, sku, region):
        regions = row.standard_deployments if sku == "Standard" else data_zone_regions()
        return Claim(False, f"the table has it in {', '.join(regions)} ({source})")
    return Claim(True, f"the table has it ({source})")


def _quota_claim(quota: Quota | None) -> Claim:
    if quota is None:
        return Claim(None)
    return Claim(quota.limit > 0, f"the service has a quota of {quota.limit:,.0f} for {quota.name}")
