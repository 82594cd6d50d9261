"""The dated table of what Azure's service tunes and deploys: `models.yaml`, read once, with a source for each fact."""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from importlib import resources
from types import MappingProxyType
from typing import Any

import yaml

DATED = re.compile(r"-(?:20\d\d-\d\d-\d\d|\d{4})$")  # gpt-4.1-mini-2025-04-14, gpt-3.5-turbo-0125, Ministral-3B-2411

NUMBERED = re.compile(r"-\d{1,3}$")  # gpt-oss-20b-11, as the service lists it


@dataclass(frozen=True, slots=True)
class Source:
    """A document and its own date."""

    address: str
    date: date

    def __str__(self) -> str:
        return f"{self.address} of {self.date}"


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """A base model. Regions are Azure's own words (swedencentral); an absent day is one that no document names."""

    name: str
    publisher: str
    format: str  # of a deployment at Azure Resource Manager; letters of another case are refused there
    methods: tuple[str, ...]  # sft, dpo, rft
    training_types: tuple[str, ...]  # in the words of openai.training_type, the usual one first
    skus: tuple[
        str, ...
    ]  # in Azure Resource Manager's words, the cheapest to try first; none where nothing here deploys it
    capacity: int  # that a deployment asks for, in thousands of tokens a minute
    also: tuple[str, ...] = ()  # other names of the same model
    standard_regions: tuple[str, ...] = ()  # where Standard trains
    standard_deployments: tuple[str, ...] = ()  # where the SKU Standard is
    global_regions: tuple[str, ...] = ()
    not_in: tuple[str, ...] = ()
    flag_is_wrong: bool = False  # the service lists fine_tune: false, and tunes it
    weight_is_unsaid: bool = False  # whether `weight` of a message is honored
    own_tokenizer: bool = False  # so that an encoding of OpenAI's only estimates its tokens
    context: int | None = None  # the tokens of the longest training example
    tuning_until: date | None = None  # no end before this day, for who has tuned with it already
    new_customers_until: date | None = None
    answers_until: date | None = None  # deployments of tuned models
    sources: Mapping[str, Source] = field(default_factory=dict)  # by the names of the fields above


def find_in_catalog(model: str) -> CatalogModel | None:
    """The table's row for a base, a version of it, or a model tuned from it; None where the table has none."""
    name = DATED.sub("", _untuned(model)).lower()
    return _by_name().get(name) or _by_name().get(NUMBERED.sub("", name))


def catalog() -> Mapping[str, CatalogModel]:
    """All rows by their names, in the order of the table."""
    return _catalog()


def data_zone_regions() -> tuple[str, ...]:
    """Regions of resources that offer DataZone training."""
    return tuple(_table()["regions"]["data_zone"])


def read_on() -> date:
    """Date on which the documents were read."""
    found: date = _table()["read_on"]
    return found


def family_of(model: str) -> str:
    """The model's name without its version, its tuning and what Azure spells in another way: the key of its facts."""
    found = find_in_catalog(model)
    name = DATED.sub("", _untuned(model)).replace("gpt-35-", "gpt-3.5-")
    return name if found is None else found.name


def _untuned(model: str) -> str:
    return model.removeprefix("ft:").partition(":")[0].partition(".ft-")[0]


@functools.cache
def _by_name() -> Mapping[str, CatalogModel]:
    return {name.lower(): model for model in _catalog().values() for name in (model.name, *model.also)}


@functools.cache
def _catalog() -> Mapping[str, CatalogModel]:
    table = _table()
    return MappingProxyType({name: _model(name, row, table) for name, row in table["models"].items()})


def _model(name: str, row: Mapping[str, Any], table: Mapping[str, Any]) -> CatalogModel:
    facts: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in row.items() if key != "sources"
    }
    facts.setdefault("global_regions", tuple(table["regions"]["global"]))
    named = {**table["facts"], **row.get("sources", {})}
    sources = {fact: Source(**table["sources"][source]) for fact, source in named.items() if facts.get(fact)}
    return CatalogModel(name=name, **facts, sources=MappingProxyType(sources))


@functools.cache
def _table() -> dict[str, Any]:
    text = resources.files("trainer.backends.openai").joinpath("models.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table
