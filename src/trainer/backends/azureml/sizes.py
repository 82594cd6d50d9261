"""The machine sizes that are known: the package's dated table, and over it what a subscription has said.

`refresh` reads the sizes that a workspace's region offers and keeps them in the user's cache. The service names no GPU:
a size that the table lacks gets that of its series, where its share of the cores says that it has a whole one.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from trainer.backends.azureml.machines import GIB, GPU, Machine
from trainer.backends.contract import MachineSize
from trainer.errors import ConfigError
from trainer.runs.files import cache_folder, write_json

TABLE = Path(__file__).with_name("sizes.yaml")
SERIES = re.compile(r"(?:standard_)?(?P<letters>[a-z]+)\d+[a-z]*(?:_xl)?_(?P<rest>.+)", re.IGNORECASE)
NUMBERS = ("cores", "memory_gb", "gpus", "disk_gb")


def find_machine(name: str) -> Machine | None:
    """Find a size by name, ignoring case; None where its GPU is unknown. Raises: ConfigError."""
    return next((machine for machine in machines() if machine.name.lower() == name.lower()), None)


def machines() -> list[Machine]:
    """Every size whose GPU is known, in the table's order. Raises: ConfigError, where the cached list is damaged."""
    known, cached = {machine.name.lower(): machine for machine in table()}, refreshed()
    for size in cached["sizes"]:
        if (machine := _machine(size, list(known.values()), cached["date"])) is not None:
            known[machine.name.lower()] = machine
    return list(known.values())


@functools.cache
def table() -> tuple[Machine, ...]:
    """The package's own."""
    found = _table()
    gpus = {
        name: GPU(name, gpu["memory_gb"] * GIB, gpu["tflops"] * 1e12, gpu["bfloat16"], gpu["capability"])
        for name, gpu in found["gpus"].items()
    }
    return tuple(
        Machine(
            f"Standard_{name}", cores, memory * GIB, gpus[family["gpu"]], count, disk * GIB, family.get("retired", ""),
            family["driver"], str(found["date"]),
        )
        for family in found["families"] for name, (cores, memory, count, disk) in family["sizes"].items()
    )  # fmt: skip


@functools.cache
def _table() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return found


def as_size(machine: Machine) -> MachineSize:
    """A machine as commands list it."""
    return MachineSize(
        machine.name, machine.num_gpus, machine.gpu.name, machine.gpu.memory_bytes, machine.num_cores,
        machine.memory_bytes, machine.disk_bytes, machine.driver, machine.as_of, machine.retired,
    )  # fmt: skip


def cache_file() -> Path:
    """The file that `refresh` writes."""
    return cache_folder() / "azureml-sizes.json"


def refreshed() -> dict[str, Any]:
    """The list of the last refresh: `date`, `place`, `sizes`; without sizes where there was none.

    Raises: ConfigError, for a file that is not what `refresh` writes.
    """
    try:
        found = json.loads(cache_file().read_text(encoding="utf-8"))
        for size in found["sizes"]:
            numbers = [size[name] for name in NUMBERS]
            if not isinstance(size["name"], str) or not all(type(number) is int and number >= 0 for number in numbers):
                raise ValueError
    except FileNotFoundError:
        return {"date": "", "place": "", "sizes": []}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            f"{cache_file()}: is not a list of machine sizes, expected the one that trainer sizes --refresh writes; "
            "write it again, or delete it"
        ) from error
    return dict(found)


def refresh(offered: Sequence[Mapping[str, Any]], place: str) -> list[str]:
    """Keep the GPU sizes that a region offers. Returns those whose GPU nothing tells."""
    sizes = [
        {
            "name": str(size.get("name")), "cores": int(size.get("vCPUs") or 0), "gpus": int(size.get("gpus") or 0),
            "memory_gb": int(size.get("memoryGB") or 0), "disk_gb": int(size.get("maxResourceVolumeMB") or 0) // 1024,
        }
        for size in offered if int(size.get("gpus") or 0)
    ]  # fmt: skip
    cache_file().parent.mkdir(parents=True, exist_ok=True)
    write_json(cache_file(), {"date": f"{datetime.now(UTC):%Y-%m-%d}", "place": place, "sizes": sizes})
    return sorted(str(size["name"]) for size in sizes if find_machine(str(size["name"])) is None)


def _machine(size: Mapping[str, Any], known: Sequence[Machine], day: str) -> Machine | None:
    """A size of the service's list as a machine: its own numbers, and the GPU of the size or of its series."""
    like = next(iter(_alike(size, known)), None)
    if like is None or not size["gpus"]:
        return None
    return Machine(
        size["name"], size["cores"], size["memory_gb"] * GIB, like.gpu, size["gpus"], size["disk_gb"] * GIB,
        like.retired, like.driver, day,
    )  # fmt: skip


def _alike(size: Mapping[str, Any], known: Sequence[Machine]) -> Iterator[Machine]:
    """The size itself, or those of its series with a whole GPU for at most as many cores."""
    yield from (machine for machine in known if machine.name.lower() == size["name"].lower())
    series = series_of(size["name"])
    same = [machine for machine in known if series is not None and series_of(machine.name) == series]
    least = min((machine.num_cores / machine.num_gpus for machine in same), default=0.0)
    whole = {machine.gpu for machine in same}
    if size["gpus"] and len(whole) == 1 and size["cores"] / size["gpus"] >= least:
        yield from same


def series_of(name: str) -> tuple[str, str] | None:
    """The letters before a size's number of cores, and what follows it: sizes that share both have the same GPU."""
    found = SERIES.fullmatch(name)
    return (found["letters"].lower(), found["rest"].lower()) if found else None
