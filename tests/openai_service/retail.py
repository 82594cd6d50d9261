"""Azure's public price list with meters of tuned models, in spellings that were seen there; the prices are invented."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

from tests.loopback import Request, Response
from tests.openai_service.state import State

HOST = "prices.azure.com"
METERS = (  # meter, unit, price
    ("gpt-4o-mini-0718 FT Training", "1K", 0.0036),
    ("gpt-4o-mini-0718 FT Training global", "1K", 0.003),
    ("gpt-4o-mini-ft hosting", "1 Hour", 1.7),
    ("gpt-4o-mini-ft input global", "1K", 0.00015),
    ("gpt-4o-mini-ft output global", "1K", 0.0006),
    ("gpt-4o-mini-ft input", "1K", 0.000165),
    ("gpt-4o-mini-ft output", "1K", 0.00066),
    ("gpt-4o-mini-ft cached input global", "1K", 0.000075),
    ("gpt-4.1-mini FT Training", "1K", 0.006),
    ("gpt-4.1-mini FT Training global", "1K", 0.005),
    ("gpt-4.1-mini FT Training Dz", "1K", 0.0055),
    ("gpt-4.1-mini-ft hosting", "1 Hour", 1.7),
    ("gpt-4.1-mini Inp glbl Tokens", "1K", 0.0004),
    ("gpt-oss-20b FT Training glbl", "1M", 4.0),
    ("gpt-oss-20b ft hosting glbl", "1 Hour", 0.35),
    ("gpt-oss-20b ft Inp glbl Tokens", "1M", 0.08),
    ("gpt-oss-20b ft Outp glbl Tokens", "1M", 0.32),
    ("o4 mini ft hosting Dz", "1 Hour", 1.7),
)
TARGET_REGION, DEARER = "eastus2", 1.5  # where all costs more
PAGE_SIZE = 10


class Retail:
    """Answers in pages; `meters` may be changed, and None is a list that cannot be had."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.meters: tuple[tuple[str, str, float], ...] | None = METERS

    def __call__(self, request: Request) -> Response:
        if self.meters is None:
            return Response(503, {"error": "unavailable"})
        wanted = dict(re.findall(r"(\w+) eq '([^']*)'", request.query["$filter"]))
        found = [item for item in self._items() if wanted == {name: item[_field(name)] for name in wanted}]
        start = int(request.query.get("$skip", 0))
        rest = len(found) > start + PAGE_SIZE
        following = f"https://{HOST}/api/retail/prices?$filter={_quoted(request)}&$skip={start + PAGE_SIZE}"
        return Response(200, {
            "BillingCurrency": "USD", "CustomerEntityId": "Default", "CustomerEntityType": "Retail",
            "Items": found[start : start + PAGE_SIZE], "NextPageLink": following if rest else None,
            "Count": len(found[start : start + PAGE_SIZE]),
        })  # fmt: skip

    def _items(self) -> Iterator[dict[str, Any]]:
        places = {TARGET_REGION: DEARER} | {self.state.region: 1.0}
        for (region, factor), (meter, unit, listed) in itertools.product(places.items(), self.meters or ()):
            price = listed * factor
            yield {
                "currencyCode": "USD", "retailPrice": price, "unitPrice": price, "armRegionName": region,
                "meterName": meter, "skuName": meter, "productName": "Azure OpenAI", "serviceName": "Foundry Models",
                "unitOfMeasure": unit, "type": "Consumption", "effectiveStartDate": "2026-01-01T00:00:00Z",
            }  # fmt: skip


def _field(name: str) -> str:
    return {"priceType": "type"}.get(name, name)


def _quoted(request: Request) -> str:
    from urllib.parse import quote

    return quote(request.query["$filter"])
