"""GPUs that a machine seems to have: a driver that answers, and a torch that the check of a node asks instead of ours.

The processes are real. Only the one that runs gpu_check.py gets this torch; what trains and serves has its own.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

SITE = """
import sys

if any(word.endswith("gpu_check.py") for word in sys.orig_argv):
    sys.path.insert(0, {folder!r})
"""
TORCH = """
import json
import pathlib
import time
from types import SimpleNamespace

told = json.loads(pathlib.Path({answers!r}).read_text())
time.sleep(told["hangs_seconds"])
__version__ = told["torch"]
version = SimpleNamespace(cuda=told["cuda"])
cuda = SimpleNamespace(is_available=lambda: told["starts"], device_count=lambda: told["count"])


class Number:
    def __init__(self, value):
        self.value = value

    def sum(self):
        return self

    def item(self):
        return self.value

    def __matmul__(self, other):
        return Number(told["computes"])


def ones(*shape, device):
    if told["error"] and int(device.removeprefix("cuda:")) in told["broken"]:
        raise RuntimeError("CUDA error: " + told["error"])
    return Number(1.0)
"""
SMI = """#!{python}
print({lines!r})
"""


@dataclass(frozen=True)
class GPUs:
    """Answers of the driver and of torch. `driver` None: a machine without one."""

    count: int = 1
    listed: int | None = None  # by the driver; the same number where it is not given
    driver: str | None = "535.274.02"
    torch: str = "2.13.0+cu126"
    cuda: str | None = "12.6"
    starts: bool = True
    error: str = ""  # of the GPUs that are `broken`
    broken: tuple[int, ...] = (0,)
    computes: float = 64.0**3
    hangs_seconds: float = 0.0


def equip(folder: Path, gpus: GPUs, path: str) -> dict[str, str]:
    """The variables of a process on a machine that has these. `path`: its PATH."""
    for name in ("bin", "site", "torch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "answers.json").write_text(json.dumps(asdict(gpus)), encoding="utf-8")
    (folder / "site" / "sitecustomize.py").write_text(SITE.format(folder=str(folder / "torch")), encoding="utf-8")
    torch = TORCH.format(answers=str(folder / "answers.json"))
    (folder / "torch" / "torch.py").write_text(torch, encoding="utf-8")
    lines = "\n".join([gpus.driver or ""] * (gpus.count if gpus.listed is None else gpus.listed))
    smi = folder / "bin" / "nvidia-smi"
    smi.write_text(SMI.format(python=sys.executable, lines=lines), encoding="utf-8")
    smi.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{path}", "PYTHONPATH": str(folder / "site")}
