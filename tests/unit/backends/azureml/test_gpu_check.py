"""A machine whose GPUs cannot be used is found out at once, by a process that really asks; its answers are made up."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.azure_twin.gpus import GPUs, equip
from trainer.backends.azureml import gpu_check
from trainer.backends.azureml.follow import was_preempted

pytestmark = pytest.mark.apart


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Machine":
    monkeypatch.setattr(gpu_check, "KERNEL_VERSION", tmp_path / "version")
    return Machine(tmp_path, monkeypatch)


class Machine:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch

    def problem(self, gpus: GPUs, expected: int | None) -> str | None:
        for name, value in equip(self.folder, gpus, os.environ["PATH"]).items():
            self.monkeypatch.setenv(name, value)
        return gpu_check.problem(expected)


@pytest.mark.parametrize(
    ("gpus", "expected"), [(GPUs(1), 1), (GPUs(8), 8), (GPUs(2), None), (GPUs(1, cuda="13.0", driver="580.65.06"), 1)]
)
def test_usable_gpus_are_no_problem(gpus: GPUs, expected: int | None, machine: Machine) -> None:
    assert machine.problem(gpus, expected) is None


CU13 = {"torch": "2.13.0", "cuda": "13.0", "starts": False}
PROBLEMS = {
    "torch for a newer driver": (
        GPUs(1, **CU13), 1, 0, ("535.274.02", "torch 2.13.0", "CUDA 13.0", "580 or newer", "built for CUDA 12.x")),
    "torch for a newer driver, whose count works": (
        GPUs(4, **CU13), 4, 0, ("580 or newer", "too old")),
    "a driver older than any": (
        GPUs(1, driver="418.40", starts=False), 1, 0, ("418.40", "525 or newer", "that this driver runs")),
    "torch for the processor": (
        GPUs(0, listed=1, torch="2.13.0+cpu", cuda=None, starts=False), 1, 0, ("535.274.02", "built without CUDA")),
    "no driver": (
        GPUs(0, driver=None, starts=False), 1, 0, ("driver not found;", "CUDA 12.6", "choose a size with a GPU")),
    "fewer than planned": (GPUs(1), 2, 1, ("sees 1, expected 2;",)),
    "more than planned": (GPUs(4), 1, 4, ("sees 4, expected 1;",)),
    "fewer than the driver lists": (GPUs(1, listed=2), None, 1, ("sees 1, expected 2;",)),
    "none of an unplanned machine": (GPUs(0, listed=1, starts=False), None, 0, ("sees 0, expected 1;",)),
    "no kernels for this GPU": (
        GPUs(2, error="no kernel image is available for execution on the device", broken=(0, 1)),
        2, 0, ("GPU 0: CUDA error: no kernel image", "kernels for this GPU")),
    "one that is broken": (
        GPUs(8, error="uncorrectable ECC error encountered", broken=(3,)),
        8, 7, ("GPU 3: CUDA error: uncorrectable ECC", "another machine")),
    "one that computes nonsense": (GPUs(1, computes=3.0), 1, 0, ("GPU 0 computes 3.0", "another machine")),
    "CUDA that does not start": (GPUs(1, starts=False), 1, 0, ("CUDA does not start",)),
}  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_problem_names_facts_and_way_out(name: str, machine: Machine) -> None:
    gpus, expected, usable, parts = PROBLEMS[name]
    told = machine.problem(gpus, expected)
    assert told is not None
    assert [part for part in parts if part not in told] == [], told
    counted = f"the driver lists {gpus.listed}" if expected is None else f"the plan counts on {expected}"
    assert told.startswith(f"GPU: {usable} can be used and {counted}; driver ")
    assert "\n" not in told
    assert not was_preempted(told), "a run that loses its machine is submitted again, and this one is not"


def test_a_machine_without_a_gpu_that_was_chosen_on_purpose_is_not_looked_at(machine: Machine) -> None:
    assert machine.problem(GPUs(1, hangs_seconds=99, **CU13), 0) is None
    assert machine.problem(GPUs(0, driver=None), None) is None


def test_a_torch_that_hangs_is_stopped(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_check.PROBE_SECONDS + gpu_check.DRIVER_SECONDS < 60
    monkeypatch.setattr(gpu_check, "PROBE_SECONDS", 1.0)
    started = time.monotonic()
    told = machine.problem(GPUs(1, hangs_seconds=60), 1)
    assert time.monotonic() - started < 20
    assert told is not None
    assert "did not answer within 1 s" in told


def test_the_driver_is_found_without_its_program(machine: Machine, tmp_path: Path) -> None:
    """The words of a real file of a driver, whose program a container need not have."""
    line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.274.02  Fri Sep 12 16:21:09 UTC 2025\n"
    (tmp_path / "version").write_text(f"{line}GCC version: gcc version 11.4.0\n")
    told = machine.problem(GPUs(1, listed=0, **CU13), None)
    assert told is not None
    assert "driver 535.274.02" in told


def test_our_own_torch_answers_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("PYTHONPATH", raising=False)
    found = gpu_check.probe()
    assert (found["torch"], found["cuda"]) == (torch.__version__, torch.version.cuda)
    assert found["count"] == torch.cuda.device_count() == found["usable"]


def test_a_torch_that_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told = gpu_check.problem(1)
    assert told is not None
    assert "libcudart.so.12" in told
    assert "Traceback" not in told


def test_it_needs_no_other_file_of_ours(tmp_path: Path) -> None:
    """As in the container of vLLM."""
    (tmp_path / "gpu_check.py").write_bytes(Path(gpu_check.__file__).read_bytes())
    code = "import sys, gpu_check; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "trainer" not in done.stdout.split()
