"""What the services ask, from a dated list that a config can replace."""

import functools
import re
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from trainer.config.openai import OpenAIConfig

MILLION = 1_000_000
DATED = re.compile(r"-(?:20\d\d-\d\d-\d\d|\d{4})$")  # gpt-4.1-mini-2025-04-14, gpt-3.5-turbo-0125


@dataclass(frozen=True, slots=True)
class Prices:
    """By the million tokens, and by the hour of a deployment; None where no price is known."""

    training: float | None
    input: float | None
    output: float | None
    base_input: float | None
    base_output: float | None
    hosting: float | None
    source: str


def prices_of(family: str, settings: OpenAIConfig) -> Prices:
    """The prices for models made from `family`, such as gpt-4.1-mini."""
    table = _table()
    listed: dict[str, float] = table["models"].get(family, {})
    share = table["share"][settings.training_type or "Standard"] if settings.service == "azure" else 1.0
    training = listed["training"] * share if listed else None
    own = {name: getattr(settings, f"{name}_price") for name in ("training", "input", "output", "hosting")}
    given = {name: price for name, price in own.items() if price is not None}
    source = (
        f"list of {table['as_of']}, from {table['source']}; they change, openai.training_price and others replace them"
    )
    if given:
        source = f"the config's own for {', '.join(given)}; else {source}"
    return Prices(
        training=given.get("training", training),
        input=given.get("input", listed.get("input")),
        output=given.get("output", listed.get("output")),
        base_input=listed.get("base_input"),
        base_output=listed.get("base_output"),
        hosting=given.get("hosting", table["hosting"] if settings.service == "azure" else 0.0),
        source=source,
    )


def family_of(model: str) -> str:
    """The model's name without its version, its tuning and what Azure spells in another way."""
    name = model.removeprefix("ft:").partition(":")[0].partition(".ft-")[0]
    return DATED.sub("", name).replace("gpt-35-", "gpt-3.5-")


def known_families() -> list[str]:
    """The models of the list: what either service is known to fine-tune."""
    return list(_table()["models"])


def cost(num_tokens: float, price: float | None) -> float | None:
    """The price of so many tokens."""
    return None if price is None else num_tokens * price / MILLION


@functools.cache
def _table() -> dict[str, Any]:
    text = resources.files("trainer.backends.openai").joinpath("prices.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table
