"""Machine sizes: the package's dated table, and what a subscription has said over it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from trainer.backends.azureml import sizes
from trainer.backends.azureml.image import builds, lacking_kernels, own_image
from trainer.backends.azureml.machines import GIB
from trainer.backends.azureml.sizes import find_machine, machines, refresh, series_of, table
from trainer.errors import ConfigError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def offered(name: str, cores: int, gpus: int, memory: float = 100, disk: int = 64) -> dict[str, Any]:
    """As the service describes a size."""
    return {"name": name, "vCPUs": cores, "gpus": gpus, "memoryGB": memory, "maxResourceVolumeMB": disk * 1024}


def test_machines_are_found_however_their_name_is_written() -> None:
    assert [find_machine(machine.name.upper()) for machine in table()] == list(table())
    assert find_machine("Standard_D2") is None
    assert {machine.gpu.name for machine in table() if not machine.gpu.has_bfloat16} == {"T4", "V100"}
    assert {machine.name for machine in table() if machine.retired} == {
        machine.name for machine in table() if machine.gpu.name == "V100"
    }


def test_the_table_is_dated_and_whole() -> None:
    """Each family that the documentation lists with a usable GPU, by one of its sizes."""
    assert {machine.as_of for machine in table()} == {"2026-11-28"}
    assert len({machine.name.lower() for machine in table()}) == len(table())
    known = {machine.gpu.name: machine for machine in reversed(table())}
    counts = {
        name: (one.num_gpus, one.num_cores, one.gpu.memory_bytes // GIB, one.driver) for name, one in known.items()
    }
    assert counts == {
        "T4": (1, 4, 16, "compute"), "V100": (1, 6, 16, "compute"), "A10": (1, 36, 24, "grid"),
        "half an A10": (1, 18, 12, "grid"), "third of an A10": (1, 12, 8, "grid"), "sixth of an A10": (1, 6, 4, "grid"),
        "A100": (1, 24, 80, "compute"), "A100 40 GB": (8, 96, 40, "compute"), "H100 NVL": (1, 40, 94, "compute"),
        "H100": (8, 96, 80, "compute"), "H200": (8, 96, 141, "compute"), "RTX PRO 6000": (1, 128, 96, "grid"),
    }  # fmt: skip


def test_every_gpu_has_a_build_of_torch_that_runs_on_it() -> None:
    capabilities = {machine.gpu.capability for machine in table()}
    assert all(re.fullmatch(r"\d+\.\d", capability) for capability in capabilities)
    assert [one for one in capabilities if not any(build.runs_on(one) for build in builds())] == []


def test_a_gpu_without_code_in_the_default_image_is_told_before_it_is_rented() -> None:
    lacking = {one.gpu.name for one in table() if lacking_kernels("azureml.instance_type", one, "x")}
    assert lacking == {"RTX PRO 6000"}
    machine = find_machine("Standard_NC128ds_xl_RTXPRO6000BSE_v6")
    assert machine is not None
    (problem,) = lacking_kernels("azureml.instance_type", machine, own_image(machine))
    assert problem.startswith("azureml.instance_type: Standard_NC128ds_xl_RTXPRO6000BSE_v6 has the GPU RTX PRO 6000")
    assert "; build it with TORCH_BUILD=cu130 and name it in azureml.environment, as docs/azureml.md says," in problem


def test_a_refresh_takes_the_services_numbers_and_the_series_gpu(cache: Path) -> None:
    unknown = refresh(
        [
            offered("Standard_DS3_v2", 4, 0),  # no GPU
            offered("STANDARD_NC24ads_A100_v4", 24, 1, memory=221, disk=128),  # other numbers than the table's
            offered("Standard_NC192ads_A100_v4", 192, 8),  # a new one of a series with one kind of GPU
            offered("Standard_NC12ads_A100_v4", 12, 1),  # fewer cores than any with a whole one
            offered("Standard_NV24ads_A10_v5", 24, 1),  # of a series with parts of GPUs
            offered("Standard_ND96isr_B300_v7", 96, 8),  # of a series that nobody knows
        ],
        "ws-twin in rg-twin, eastus",
    )
    assert unknown == ["Standard_NC12ads_A100_v4", "Standard_ND96isr_B300_v7", "Standard_NV24ads_A10_v5"]
    known, new = find_machine("standard_nc24ads_a100_v4"), find_machine("Standard_NC192ads_A100_v4")
    assert known is not None
    assert new is not None
    assert (known.memory_bytes // GIB, known.disk_bytes // GIB, known.gpu.name) == (221, 128, "A100")
    assert (new.num_gpus, new.gpu.name, new.driver) == (8, "A100", "compute")
    assert new.as_of > "2026-11-01"
    assert len(machines()) == len(table()) + 1
    assert [path.name for path in cache.iterdir()] == ["azureml-sizes.json"]
    refresh([], "another")
    assert machines() == list(table())


WORDS = {"name": "a", "cores": "4", "memory_gb": 1, "gpus": 1, "disk_gb": 1}
DAMAGED = ["", "[]", "{}", *(json.dumps({"date": "x", "sizes": [size]}) for size in ({"name": "a"}, WORDS))]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_list_is_named_with_the_way_out(cache: Path, text: str) -> None:
    cache.mkdir()
    sizes.cache_file().write_text(text)
    with pytest.raises(ConfigError, match=r"azureml-sizes\.json: is not a list of machine sizes.*--refresh"):
        find_machine("Standard_NC24ads_A100_v4")


def test_a_series_is_what_sizes_of_one_gpu_share() -> None:
    assert series_of("Standard_NC24ads_A100_v4") == series_of("standard_NC96ads_A100_v4") == ("nc", "a100_v4")
    assert series_of("Standard_NCC40ads_H100_v5") != series_of("Standard_NC40ads_H100_v5")
    assert series_of("Standard_NC128lds_xl_RTXPRO6000BSE_v6") == ("nc", "rtxpro6000bse_v6")
    assert series_of("odd") is None
