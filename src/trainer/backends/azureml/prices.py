"""What a machine costs an hour: Azure's public price list, or the figure that the config gives. Never a guess."""

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from trainer.backends.http import timeout_seconds
from trainer.config.azureml import AzureMLConfig

ADDRESS = "https://prices.azure.com/api/retail/prices"
MOST_PAGES = 5
CHEAP = ("Low Priority", "Spot")  # meters of machines that may be taken away


@dataclass(frozen=True, slots=True)
class Price:
    """Of one machine for an hour; None where nobody says it."""

    per_hour: float | None
    source: str


def price_of(config: AzureMLConfig, machine: str | None, region: str | None) -> Price:
    """The config's own figure, else the price list's for the region."""
    if config.price_per_hour is not None:
        return Price(config.price_per_hour, "azureml.price_per_hour of the config")
    if machine is None or region is None:
        return Price(None, "not known, as machine or region is not; give azureml.price_per_hour")
    try:
        items = list(_items(machine, region, config.currency))
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Price(None, f"prices.azure.com gave none ({type(error).__name__}); give azureml.price_per_hour")
    return _chosen(items, config, machine, region)


def _chosen(items: list[dict[str, Any]], config: AzureMLConfig, machine: str, region: str) -> Price:
    today = f"prices.azure.com on {datetime.now(UTC):%Y-%m-%d}, {region}"
    for kind in CHEAP if config.tier == "low_priority" else ("",):
        found = [float(item["retailPrice"]) for item in items if _kind_of(item) == kind and item["retailPrice"]]
        if found:  # of several meters the dearest, so that the cap holds
            return Price(max(found), f"{today}{', ' + kind.lower() if kind else ''}; without storage and network")
    return Price(None, f"{today} lists none for {machine}; give azureml.price_per_hour")


def _kind_of(item: dict[str, Any]) -> str | None:
    """The kind of machine that a meter counts; None for what no Linux job is billed by."""
    if item.get("type", "Consumption") != "Consumption" or "Windows" in str(item.get("productName")):
        return None
    if "Hour" not in str(item.get("unitOfMeasure")):
        return None
    return next((kind for kind in CHEAP if kind in str(item.get("meterName"))), "")


def _items(machine: str, region: str, currency: str) -> Iterator[dict[str, Any]]:
    wanted = f"serviceName eq 'Virtual Machines' and armRegionName eq '{region}' and armSkuName eq '{machine}'"
    query = urllib.parse.urlencode({"currencyCode": f"'{currency}'", "$filter": wanted})
    address: str | None = f"{ADDRESS}?{query}"
    for _ in range(MOST_PAGES):
        if not address or not address.startswith("https://prices.azure.com"):
            return
        # urlopen would keep the proxies of its first call for good.
        with urllib.request.build_opener().open(address, timeout=timeout_seconds()) as answer:
            page = json.load(answer)
        yield from page["Items"]
        address = page.get("NextPageLink")
