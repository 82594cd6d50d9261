"""The GPU machines that Azure ML offers in the NC series, as its documentation lists them.

Prices are not here: they change, and are asked for. What a GPU computes is its maker's figure for dense matrices.
"""

from dataclasses import dataclass

GIB = 2**30


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
