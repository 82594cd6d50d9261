"""The GPU machines of Azure ML's NC series, and what a machine costs an hour.

The table is that of Azure's documentation; what a GPU computes is its maker's figure for dense matrices. Prices change
and are asked for: of the config, or of Azure's public price list. They are never guessed.
"""

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from trainer.backends.http import timeout_seconds
from trainer.config.azureml import AzureMLConfig

GIB = 2**30
PRICE_LIST = "https://prices.azure.com/api/retail/prices"
MOST_PAGES = 5
CHEAP = ("Low Priority", "Spot")  # meters of machines that may be taken away


@dataclass(frozen=True, slots=True)
class GPU:
    """A kind of GPU. `flops`: float16 or bfloat16 operations a second, dense."""

    name: str
    memory_bytes: int
    flops: float
    has_bfloat16: bool


T4 = GPU("T4", 16 * GIB, 65e12, has_bfloat16=False)
V100 = GPU("V100", 16 * GIB, 112e12, has_bfloat16=False)
A100 = GPU("A100", 80 * GIB, 312e12, has_bfloat16=True)
H100 = GPU("H100 NVL", 94 * GIB, 835e12, has_bfloat16=True)


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine size. `disk_bytes`: the temporary disk of the plain virtual machine; a node may have less."""

    name: str
    num_cores: int
    memory_bytes: int
    gpu: GPU
    num_gpus: int
    disk_bytes: int
    retired: str = ""  # since when

    def __str__(self) -> str:
        return f"{self.name}, {self.num_gpus} x {self.gpu.name} with {self.gpu.memory_bytes // GIB} GB"


def _machine(name: str, cores: int, memory: int, gpu: GPU, gpus: int, disk: int, retired: str = "") -> Machine:
    return Machine(f"Standard_{name}", cores, memory * GIB, gpu, gpus, disk * GIB, retired)


_NCV3 = "2025-09-30"
MACHINES = (
    _machine("NC4as_T4_v3", 4, 28, T4, 1, 176),
    _machine("NC8as_T4_v3", 8, 56, T4, 1, 352),
    _machine("NC16as_T4_v3", 16, 110, T4, 1, 352),
    _machine("NC64as_T4_v3", 64, 440, T4, 4, 2816),
    _machine("NC6s_v3", 6, 112, V100, 1, 736, _NCV3),
    _machine("NC12s_v3", 12, 224, V100, 2, 1474, _NCV3),
    _machine("NC24s_v3", 24, 448, V100, 4, 2948, _NCV3),
    _machine("NC24rs_v3", 24, 448, V100, 4, 2948, _NCV3),
    _machine("NC24ads_A100_v4", 24, 220, A100, 1, 64),
    _machine("NC48ads_A100_v4", 48, 440, A100, 2, 128),
    _machine("NC96ads_A100_v4", 96, 880, A100, 4, 256),
    _machine("NC40ads_H100_v5", 40, 320, H100, 1, 3576),
    _machine("NC80adis_H100_v5", 80, 640, H100, 2, 7152),
    _machine("NCC40ads_H100_v5", 40, 320, H100, 1, 800),
)


def find_machine(name: str) -> Machine | None:
    """A size by its name, however its letters are cased; None for one that is not in the table."""
    return next((machine for machine in MACHINES if machine.name.lower() == name.lower()), None)


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
    address: str | None = f"{PRICE_LIST}?{query}"
    for _ in range(MOST_PAGES):
        if not address or not address.startswith("https://prices.azure.com"):
            return
        # urlopen would keep the proxies of its first call for good.
        with urllib.request.build_opener().open(address, timeout=timeout_seconds()) as answer:
            page = json.load(answer)
        yield from page["Items"]
        address = page.get("NextPageLink")
