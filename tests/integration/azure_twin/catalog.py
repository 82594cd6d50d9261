"""Machine sizes, quotas and prices. The prices are invented: the twin knows none of Azure's."""

import re
from typing import Any

from tests.integration.azure_twin.world import REGION, SUBSCRIPTION_ID
from tests.loopback import Request, Response

SIZES = (  # name, family, vCPUs, GPUs, memory in GB, disk in GB, invented price an hour: dedicated, low priority
    ("Standard_DS3_v2", "standardDSv2Family", 4, 0, 14, 28, 0.30, 0.06),
    ("Standard_NC4as_T4_v3", "Standard NCASv3_T4 Family", 4, 1, 28, 176, 0.50, 0.10),
    ("Standard_NC64as_T4_v3", "Standard NCASv3_T4 Family", 64, 4, 440, 2816, 4.00, 0.80),
    ("Standard_NC24ads_A100_v4", "StandardNCADSA100v4Family", 24, 1, 220, 64, 4.00, 0.80),
    ("Standard_NC96ads_A100_v4", "StandardNCADSA100v4Family", 96, 4, 880, 256, 16.00, 3.20),
    ("Standard_NC128ds_xl_RTXPRO6000BSE_v6", "StandardNCdsRTXPRO6000BSEv6XLFamily", 128, 1, 512, 1024, 8.00, 1.60),
    ("Standard_NC40ads_H100_v5", "StandardNCADSH100v5Family", 40, 1, 320, 128, 7.00, 1.40),
)


def gpus_of(size: str) -> int:
    """Number of GPUs of a size."""
    return next(gpus for name, _, _, gpus, *_ in SIZES if name.lower() == size.lower())


def vm_sizes() -> dict[str, Any]:
    def size(name: str, family: str, cpus: int, gpus: int, memory: int, disk: int, *prices: float) -> dict[str, Any]:
        tiers = zip(("Standard", "LowPriority"), prices, strict=True)
        return {
            "name": name, "family": family, "vCPUs": cpus, "gpus": gpus, "osVhdSizeMB": 1047552,
            "maxResourceVolumeMB": disk * 1024, "memoryGB": memory, "lowPriorityCapable": True, "premiumIO": True,
            "estimatedVMPrices": {
                "billingCurrency": "USD", "unitOfMeasure": "OneHour",
                "values": [{"retailPrice": price, "osType": "Linux", "vmTier": tier} for tier, price in tiers],
            },
            "supportedComputeTypes": ["AmlCompute", "ComputeInstance"],
        }  # fmt: skip

    return {"value": [size(*one) for one in SIZES]}


def usages(limits: dict[str, int]) -> dict[str, Any]:
    """`limits`: cores of a family, or of `LowPriorityCores`; others have 200."""
    families = list(dict.fromkeys(one[1] for one in SIZES))
    rows = [(f"{family} Cluster Dedicated vCPUs", family, limits.get(family, 200)) for family in families]
    rows.append(("Total Cluster LowPriority Regional vCPUs", "LowPriorityCores", limits.get("LowPriorityCores", 200)))
    rows.append(
        ("Total Cluster Dedicated Regional vCPUs", "TotalDedicatedCores", limits.get("TotalDedicatedCores", 400))
    )
    return {"value": [_usage(*row) for row in rows]}


def quotas(limits: dict[str, int]) -> dict[str, Any]:
    keep = ("id", "amlWorkspaceLocation", "type", "name", "limit", "unit")
    return {"value": [{name: usage[name] for name in keep} for usage in usages(limits)["value"]]}


def _usage(title: str, name: str, limit: int) -> dict[str, Any]:
    place = f"{SUBSCRIPTION_ID}/providers/Microsoft.MachineLearningServices/locations/{REGION}/usages/{name}"
    return {
        "id": place, "amlWorkspaceLocation": REGION, "type": "Microsoft.MachineLearningServices/usages",
        "unit": "Count", "currentValue": 0, "limit": limit, "name": {"value": name, "localizedValue": title},
    }  # fmt: skip


def prices(request: Request) -> Response:
    """The Retail Prices API: `$filter` is read as `field eq 'value'` joined by `and`."""
    wanted = dict(re.findall(r"(\w+) eq '([^']*)'", request.query.get("$filter", "")))
    items = [item for item in _meters() if all(str(item.get(name)) == value for name, value in wanted.items())]
    return Response(200, {
        "BillingCurrency": request.query.get("currencyCode", "USD").strip("'"), "CustomerEntityId": "Default",
        "CustomerEntityType": "Retail", "Items": items, "NextPageLink": None, "Count": len(items),
    })  # fmt: skip


def _meters() -> list[dict[str, Any]]:
    found = []
    for name, family, *_, dedicated, low in SIZES:
        short = name.removeprefix("Standard_").replace("_", " ")
        for suffix, price in (("", dedicated), (" Low Priority", low), (" Spot", low)):
            for system in ("", " Windows"):
                found.append({
                    "currencyCode": "USD", "tierMinimumUnits": 0.0, "retailPrice": price * (2 if system else 1),
                    "unitPrice": price * (2 if system else 1), "armRegionName": REGION, "location": "US East",
                    "effectiveStartDate": "2026-01-01T00:00:00Z", "meterId": "00000000-0000-0000-0000-000000000000",
                    "meterName": short + suffix, "productId": "TWIN", "skuId": "TWIN/0001", "availabilityId": None,
                    "productName": f"Virtual Machines {family} Series{system}", "skuName": short + suffix,
                    "serviceName": "Virtual Machines", "serviceId": "TWIN", "serviceFamily": "Compute",
                    "unitOfMeasure": "1 Hour", "type": "Consumption", "isPrimaryMeterRegion": True, "armSkuName": name,
                })  # fmt: skip
    return found
