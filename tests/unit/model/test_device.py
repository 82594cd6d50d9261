"""Which number format a device computes in, and what memory it has taken."""

import subprocess
import sys

import pytest
import torch

from trainer.config.schema import ModelConfig
from trainer.model import device as devices
from trainer.model.device import LARGE_FOR_A_CPU, pick_dtype

pytestmark = pytest.mark.apart

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "num_parameters", "quantization", "expected"),
    [
        ({"avx512_bf16": True}, LARGE_FOR_A_CPU, "none", torch.bfloat16),
        ({"amx_bf16": True}, LARGE_FOR_A_CPU, "none", torch.bfloat16),
        ({"avx512_bf16": True}, LARGE_FOR_A_CPU - 1, "none", torch.float32),
        ({"avx512_bf16": True}, LARGE_FOR_A_CPU, "nf4", torch.float32),
        ({"avx2": True, "avx512_bf16": False}, LARGE_FOR_A_CPU, "none", torch.float32),
    ],
)
def test_a_cpu_computes_large_bases_in_bfloat16_where_it_has_units_for_it(
    monkeypatch: pytest.MonkeyPatch,
    capabilities: dict[str, bool],
    num_parameters: int,
    quantization: str,
    expected: torch.dtype,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    settings = ModelConfig.model_validate({"base": "x", "quantization": quantization})
    assert pick_dtype(settings, CPU, num_parameters) == expected


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_format_that_is_given_is_taken(name: str) -> None:
    assert pick_dtype(ModelConfig.model_validate({"base": "x", "dtype": name}), CPU) == getattr(torch, name)


def test_this_machine_says_what_it_can() -> None:
    assert devices.has_bf16_units(torch.cpu.get_capabilities()) in (True, False)


ASKED_BY_A_LARGE_PROCESS = """
import subprocess, sys
held = b"x" * 2**30
asked = "from trainer.model.device import peak_process_bytes; print(peak_process_bytes())"
subprocess.run([sys.executable, "-c", asked])
"""


def test_the_peak_of_a_process_is_not_that_of_the_one_that_started_it() -> None:
    printed = subprocess.run(
        [sys.executable, "-c", ASKED_BY_A_LARGE_PROCESS], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert 2**22 < int(printed) < 2**29
