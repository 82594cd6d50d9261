"""Check a machine's GPUs, as a job, a scoring script and vLLM's container do before anything else.

Where CUDA cannot start, torch computes on the processor without a word, and the machine bills on. It needs the standard
library alone, as vLLM's container has no other file of ours, and asks torch in a process that it can stop.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROBE_SECONDS = (
    40.0  # importing torch, a context on each of eight GPUs; together with the driver's answer below a minute
)
DRIVER_SECONDS = 10.0
# The oldest driver on which any CUDA of a major version runs: docs.nvidia.com/deploy/cuda-compatibility, 2026-09.
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
KERNEL_VERSION = Path("/proc/driver/nvidia/version")
ANOTHER_MACHINE = "run it again on another machine, and report this one to Azure if it repeats"
SIDE = 64  # of the matrix that each GPU multiplies


def problem(expected: int | None) -> str | None:
    """The reason why the GPUs of this machine cannot be used as planned; None where they can.

    `expected`: how many the plan counts on. With 0 nothing is looked at; None takes as many as the driver lists.
    """
    if expected == 0:
        return None
    driver, listed = find_driver()
    if expected is None and driver is None:
        return None  # a size that nobody knows, and no sign of a GPU
    found = probe()
    wanted = expected or listed or found.get("count") or 1
    if found.get("usable") == wanted == found["count"]:
        return None
    counted = f"the driver lists {wanted}" if expected is None else f"the plan counts on {wanted}"
    facts = f"{found.get('usable', 0)} can be used and {counted}; {_versions(found, driver)}"
    return f"GPU: {facts}; {_reason(found, wanted, driver)}"


def expected_gpus(environment: Mapping[str, str]) -> int | None:
    """The number that the deployment states; None where it states nothing."""
    stated = environment.get("TRAINER_EXPECTED_GPUS", "")
    return int(stated) if stated.isdecimal() else None


def _versions(found: dict[str, Any], driver: str | None) -> str:
    """The facts that somebody who mends this asks for first."""
    cuda = found.get("cuda")
    torch = f"torch {found.get('torch', 'does not answer')}"
    built = f"built for CUDA {cuda}" if cuda else "built without CUDA"
    wants = f", which wants driver {oldest} or newer" if (oldest := oldest_driver(cuda)) else ""
    return f"driver {driver or 'not found'}; " + (f"{torch}, {built}{wants}" if "torch" in found else torch)


def oldest_driver(cuda: str | None) -> int | None:
    """The driver that torch's CUDA wants; None where that is not known."""
    major = (cuda or "").partition(".")[0]
    return OLDEST_DRIVER.get(int(major)) if major.isdecimal() else None


def _reason(found: dict[str, Any], wanted: int, driver: str | None) -> str:
    """A cause and the way out: the first cause that explains the others."""
    oldest = oldest_driver(found.get("cuda"))
    if "failure" in found:
        return f"{found['failure']}; {ANOTHER_MACHINE}"
    if not found["cuda"]:
        return "expected a torch that is built for CUDA; take the default image, or one whose torch is"
    if driver is None:
        return "expected a machine with an NVIDIA driver; choose a size with a GPU, or plan one without"
    if oldest is not None and int(driver.partition(".")[0]) < oldest:
        newest = max(
            (cuda for cuda, least in OLDEST_DRIVER.items() if least <= int(driver.partition(".")[0])), default=0
        )
        fitting = f"built for CUDA {newest}.x" if newest else "that this driver runs"
        return f"the driver is too old for this torch; take an image with a torch {fitting}, as docs/azureml.md says"
    if found["count"] != wanted:
        return (
            f"torch sees {found['count']}, expected {wanted}; correct the plan's number of GPUs, or choose another size"
        )
    if any("no kernel image" in error for error in found["errors"]):
        return f"{found['errors'][0]}; take an image whose torch has kernels for this GPU, as docs/azureml.md says"
    return f"{'; '.join(found['errors']) or 'CUDA does not start'}; {ANOTHER_MACHINE}"


def find_driver() -> tuple[str | None, int]:
    """The driver's version, and how many GPUs it lists."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        done = None
    versions = re.findall(r"^\d+(?:\.\d+)*$", done.stdout, re.MULTILINE) if done is not None else []
    if versions:
        return versions[0], len(versions)
    try:
        told = re.search(r"Kernel Module\D*(\d+(?:\.\d+)+)", KERNEL_VERSION.read_text(encoding="utf-8"))
    except OSError:
        told = None
    return (told[1] if told else None), 0


def probe() -> dict[str, Any]:
    """Torch's account of itself and of the GPUs, from a process of its own; `failure` where it gives none."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", __file__],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            env=dict(os.environ),
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"torch did not answer within {PROBE_SECONDS:.0f} s"}
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        said = " ".join(done.stderr.split())[-300:]
        return {"failure": f"asking torch ended with exit code {done.returncode}: {said or 'without a word'}"}
    return answer


def look() -> dict[str, Any]:
    """Every GPU multiplies a matrix of ones: what is only listed need not be usable."""
    import torch

    count, errors = torch.cuda.device_count(), []
    for number in range(count):
        try:
            ones = torch.ones(SIDE, SIDE, device=f"cuda:{number}")
            total = float((ones @ ones).sum().item())
            if total != SIDE**3:
                errors.append(f"GPU {number} computes {total} where {SIDE**3} is right")
        except Exception as error:  # CUDA's many ways to fail
            lines = str(error).splitlines() or [type(error).__name__]
            errors.append(f"GPU {number}: {lines[0][:200]}")
    available = bool(torch.cuda.is_available())
    usable = count - len(errors) if available else 0
    return {
        "torch": str(torch.__version__), "cuda": torch.version.cuda, "available": available, "count": count,
        "usable": usable, "errors": errors,
    }  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look()) + "\n")
