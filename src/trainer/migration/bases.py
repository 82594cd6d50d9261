"""Open bases that a job may move to: what each needs and takes, beside the job's rows and this machine.

The facts are unverified, and whoever shows them says so.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from trainer.data.conversations import Conversation
from trainer.data.read.checks import check_files
from trainer.drafts.bases import ThisMachine, needed_bytes
from trainer.start.rows import num_tokens

GIB = 2**30


@dataclass(frozen=True, slots=True)
class OpenBase:
    """A row of the table."""

    name: str
    parameters: float
    context: int
    licence: str
    gated: bool
    tools: bool
    four_bit: bool = True


@dataclass(frozen=True, slots=True)
class Demand:
    """Demands of a job's rows on a base; tokens are an estimate, since each base cuts text in its own way."""

    longest: int
    tools: bool


@dataclass(frozen=True, slots=True)
class BaseFit:
    """A base beside the rows and the machine. `against` holds what speaks against it; empty where it fits."""

    base: OpenBase
    lora_bytes: int
    qlora_bytes: int | None  # None where its authors have quantized it in a way of their own
    against: tuple[str, ...]


def caution() -> str:
    """The words beside any fact of the table."""
    written_on: date = _table()["written_on"]
    return f"not verified at the hub (written down on {written_on}): read the model's page there"


def known_bases() -> Sequence[OpenBase]:
    """The table, smallest first."""
    rows = _table()["bases"].items()
    return [OpenBase(name, **facts | {"parameters": facts["parameters"] * 1e9}) for name, facts in rows]


def demand_of(path: Path) -> Demand:
    """Demand of a file of rows on a base; broken rows ask nothing."""
    rows = check_files([path]).conversations
    return Demand(max(map(_tokens, rows), default=0), any(row.tools for row in rows))


def fits(demand: Demand | None, machine: ThisMachine) -> list[BaseFit]:
    """Each base with what speaks against it; without rows, or where memory is not known, less is said."""
    return [_fit(base, demand, machine) for base in known_bases()]


def _fit(base: OpenBase, demand: Demand | None, machine: ThisMachine) -> BaseFit:
    lora = needed_bytes(base.parameters, True, "none")
    qlora = needed_bytes(base.parameters, True, "nf4") if base.four_bit else None
    here = needed_bytes(base.parameters, False, "none") if machine.device == "CPU" else min(lora, qlora or lora)
    against = []
    if demand is not None and demand.longest > base.context:
        against.append(f"the longest row has about {demand.longest:,} tokens")
    if demand is not None and demand.tools and not base.tools:
        against.append("its template writes no tool calls")
    if machine.free_bytes is not None and here > machine.free_bytes:
        against.append(f"too large for this {machine.device}")
    return BaseFit(base, lora, qlora, tuple(against))


def _tokens(row: Conversation) -> int:
    tools = sum(len(str(tool)) for tool in row.tools) // 4
    return tools + num_tokens([row])


@functools.cache
def _table() -> dict[str, Any]:
    text = resources.files("trainer.migration").joinpath("bases.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table
