"""Azure's public price list, which needs no sign-in: https://learn.microsoft.com/rest/api/cost-management/retail-prices."""

import json
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any

from trainer.backends.http import timeout_seconds

PRICE_LIST = "https://prices.azure.com/api/retail/prices"
MOST_PAGES = 50  # a region's models of Foundry fill 16 pages of a hundred


class UnreadablePrices(Exception):
    """The list could not be had; the reason in a few words."""


@dataclass(frozen=True, slots=True)
class PriceMeter:
    """A price of the list, for one `unit` ("1 Hour", "1K") of what `name` and `product` say."""

    name: str
    product: str
    unit: str
    kind: str  # Consumption, Reservation, …
    price: float


def list_meters(wanted: str, currency: str = "USD") -> list[PriceMeter]:
    """Every price that the filter `wanted` leaves. Raises: UnreadablePrices."""
    query = urllib.parse.urlencode({"currencyCode": f"'{currency}'", "$filter": wanted})
    found: list[PriceMeter] = []
    address = f"{PRICE_LIST}?{query}"
    for _ in range(MOST_PAGES):
        page = _page(address)
        found += [read_meter(item) for item in page["Items"]]
        address = str(page.get("NextPageLink") or "")
        if not address.startswith("https://prices.azure.com"):
            return found
    return found


def read_meter(item: Any) -> PriceMeter:
    """A price as the list writes it. Raises: UnreadablePrices."""
    price = item.get("retailPrice") if isinstance(item, Mapping) else None
    if not isinstance(price, (int, float)) or isinstance(price, bool):
        raise UnreadablePrices("an item without a price")
    name, product, unit = (str(item.get(field) or "") for field in ("meterName", "productName", "unitOfMeasure"))
    return PriceMeter(name, product, unit, str(item.get("type") or "Consumption"), float(price))


def _page(address: str) -> dict[str, Any]:
    timeout = timeout_seconds()
    try:
        # urlopen would keep the proxies of its first call for good.
        with urllib.request.build_opener().open(address, timeout=timeout) as answer:
            page = json.load(answer)
    except (OSError, HTTPException) as error:  # an answer above 399 is an OSError too
        raise UnreadablePrices(str(error) or type(error).__name__) from error
    except ValueError as error:
        raise UnreadablePrices("the answer is no JSON") from error
    if not isinstance(page, dict) or not isinstance(page.get("Items"), list):
        raise UnreadablePrices("the answer lists no items")
    return page


def price_source(region: str) -> str:
    """Name the price list, today's date and the region."""
    return f"prices.azure.com on {datetime.now(UTC):%Y-%m-%d}, {region}"
