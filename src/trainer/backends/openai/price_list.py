"""Prices of models made from a family: Azure's public price list, a dated file, and the config's own figures.

The config's figure is quoted where it stands, else the price list's, else the file's. The dearest has to fit a cap.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from trainer.backends.retail import PriceMeter, UnreadablePrices, list_meters, price_source
from trainer.config.openai import OpenAIConfig

KINDS = ("training", "input", "output", "base_input", "base_output", "hosting")
OWN = ("training", "input", "output", "hosting")  # that a config can give
TIERS = {  # of a training type or an SKU, by how a meter's name ends; regional ones may say nothing
    "GlobalStandard": ("global", "glbl", "gl"),
    "DataZone": ("datazone", "dzone", "dz"),
    "Developer": ("developer", "devtier", "dev"),
    "Standard": ("regional", "regnl", "rgnl", ""),
}
SKU_TIERS = {"DeveloperTier": "GlobalStandard", "DataZoneStandard": "DataZone"}  # whose tokens cost what others' cost
METER = re.compile(
    r"(training|trng|train|hosting|inpt|input|inp|outpt|output|outp|opt)([a-z]*?)(unit|1?[km]?tokens|hours?)*"
)
METER_KINDS = {"t": "training", "h": "hosting", "i": "input", "o": "output"}


@dataclass(frozen=True, slots=True)
class RegionPrices:
    """Azure's public price list for a region, read once; `problem` says why it could not be."""

    region: str
    meters: tuple[PriceMeter, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """Prices by one source, which names its date: by the million tokens, and by the hour of a deployment."""

    source: str
    prices: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ServicePrices:
    """The quoted prices, None where no source has one; `readings` in the order in which the sources are asked."""

    training: float | None
    input: float | None
    output: float | None
    base_input: float | None
    base_output: float | None
    hosting: float | None
    source: str
    readings: tuple[Reading, ...] = ()

    def dearest(self, kind: str) -> float | None:
        """The highest price that any source has."""
        return max((reading.prices[kind] for reading in self.readings if kind in reading.prices), default=None)

    def differing(self, kind: str) -> str:
        """Each reading of a kind, where they are not all the same."""
        found = [(reading.prices[kind], reading.source) for reading in self.readings if kind in reading.prices]
        if len({price for price, _ in found}) < 2:
            return ""
        return ", ".join(f"{price:,.2f} ({source})" for price, source in found)


def list_region(settings: OpenAIConfig, region: str | None) -> RegionPrices | None:
    """Ask the public price list for the resource's region; None where there is none to ask for."""
    if region is None or settings.service != "azure":
        return None
    wanted = f"serviceName eq 'Foundry Models' and armRegionName eq '{region}' and priceType eq 'Consumption'"
    try:
        return RegionPrices(region, tuple(list_meters(wanted)))
    except UnreadablePrices as error:
        return RegionPrices(region, problem=str(error))


def prices_of(
    family: str, settings: OpenAIConfig, listed: RegionPrices | None = None, sku: str | None = None
) -> ServicePrices:
    """The prices for models made from `family`, by the public list as far as it has been `listed`.

    `sku`: of the deployment whose tokens are paid, in Azure's word; without it the dearest counts.
    """
    readings = [_retail(family, settings, listed, sku), _file(family, settings), _own(settings)]
    found = tuple(reading for reading in readings if reading.prices)
    ranked = (*found[-1:], *found[:-1]) if found and found[-1] is readings[-1] else found
    chosen = {kind: next((each for each in ranked if kind in each.prices), None) for kind in KINDS}
    used = {each.source: [kind for kind in OWN if chosen[kind] is each] for each in ranked}
    unread = f" (prices.azure.com could not be read: {listed.problem})" if listed and listed.problem else ""
    told = f"{_named(used)}{unread}; they change, openai.training_price and others replace them"

    def price(kind: str) -> float | None:
        reading = chosen[kind]
        return None if reading is None else reading.prices[kind]

    return ServicePrices(
        training=price("training"),
        input=price("input"),
        output=price("output"),
        base_input=price("base_input"),
        base_output=price("base_output"),
        hosting=price("hosting"),
        source=told,
        readings=found,
    )


def _named(used: Mapping[str, list[str]]) -> str:
    """The sources that are quoted, each with the prices that it has where there are several."""
    found = {source: kinds for source, kinds in used.items() if kinds}
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{', '.join(kinds)}: {source}" for source, kinds in found.items()) or "none is known"


def known_families() -> list[str]:
    """The models of the dated file: those that either service is known to fine-tune."""
    return list(dict.fromkeys(name for service in _table().values() for name in service["models"]))


def _retail(family: str, settings: OpenAIConfig, listed: RegionPrices | None, sku: str | None) -> Reading:
    if listed is None:
        return Reading("", {})
    prices = meter_prices(listed.meters, family, settings.training_type or "Standard", sku)
    return Reading(price_source(listed.region), prices)


def meter_prices(meters: Iterable[PriceMeter], family: str, training_type: str, sku: str | None) -> dict[str, float]:
    """The prices among the meters of a region, of several that fit the dearest.

    The names follow no rule: "gpt-4.1-mini FT Training regional", "o4 mini ft hosting Dz", "gpt-4.1-mini-ft input".
    """
    wanted = {
        "training": training_type,
        "input": SKU_TIERS.get(sku or "", sku),
        "output": SKU_TIERS.get(sku or "", sku),
    }
    found: dict[str, float] = {}
    for kind, tier, price in _own_meters(meters, family):
        if price > 0 and wanted.get(kind) in (None, tier):  # a price of 0 is one below what the list can show
            found[kind] = max(price, found.get(kind, 0.0))
    base = {f"base_{kind}": found[kind] for kind in ("input", "output") if kind in found}
    return found | base


def _own_meters(meters: Iterable[PriceMeter], family: str) -> Iterator[tuple[str, str, float]]:
    """Kind, tier and price of each meter for tuned models of the family."""
    name = _squeezed(family.removesuffix("-Instruct")).removeprefix("gpt")
    own = re.compile(
        rf"(?:azureopenai)?(?:gpt)?{re.escape(name)}(?:instruct)?(?:\d{{4}}|\d{{8}})?(?:ft|finetun(?:ed|ing))"
    )
    for meter in meters:
        squeezed = _squeezed(meter.name)
        begin = own.match(squeezed)
        parts = begin and METER.fullmatch(squeezed, begin.end())
        tier = parts and next((tier for tier, words in TIERS.items() if parts[2] in words), None)
        scale = _scale(meter.unit)
        if not parts or tier is None or scale is None or meter.kind != "Consumption":
            continue
        kind = METER_KINDS[parts[1][0]]
        if (kind == "hosting") == (scale == 0):
            yield kind, tier, meter.price * (scale or 1)


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def _scale(unit: str) -> int | None:
    """Factor from a meter's unit to a million tokens; 0 for hours, None for anything else."""
    if "hour" in unit.lower():
        return 0
    return {"1K": 1000, "1M": 1}.get(unit.split()[0] if unit else "")


def _file(family: str, settings: OpenAIConfig) -> Reading:
    if (table := _table().get(settings.service)) is None:  # a server of this trainer, which has no prices
        return Reading("", {})
    listed: dict[str, float] = dict(table["models"].get(family, {}))
    if listed and settings.service == "azure":
        listed["training"] *= table["share"][settings.training_type or "Standard"]
        listed |= {"base_input": listed["input"], "base_output": listed["output"]}
    return Reading(f"list of {table['as_of']}, {table['source']}", {"hosting": table["hosting"]} | listed)


def _own(settings: OpenAIConfig) -> Reading:
    own = {name: getattr(settings, f"{name}_price") for name in OWN}
    return Reading("the config's own", {name: price for name, price in own.items() if price is not None})


@functools.cache
def _table() -> dict[str, Any]:
    text = resources.files("trainer.backends.openai").joinpath("prices.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table
