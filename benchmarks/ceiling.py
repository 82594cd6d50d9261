"""What this machine can do at best, and which it is: by its kind and versions, not by its name."""

import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate")


def gemm_rate() -> float:
    """FLOP per second of one CPU thread, the best of several large bfloat16 products, by CPU time."""
    import torch

    torch.set_num_threads(1)
    a, b = (torch.randn(2048, 2048).bfloat16() for _ in range(2))
    best = float("inf")
    for _ in range(7):
        start = time.process_time()
        torch.mm(a, b)
        best = min(best, time.process_time() - start)
    return 2 * 2048**3 / best


def product_rate(device: str, rows: int, inputs: int, outputs: int) -> float:
    """FLOP per second of a bfloat16 product [rows, inputs] x [inputs, outputs] of random numbers: zeros are faster."""
    import torch

    a = torch.randn(rows, inputs, device=device).bfloat16()
    b = torch.randn(inputs, outputs, device=device).bfloat16()
    return 2 * rows * inputs * outputs / _best_seconds(device, lambda: torch.mm(a, b))


def copy_rate(device: str, num_bytes: int) -> float:
    """Bytes per second, read and written ones."""
    import torch

    source = torch.randint(256, (num_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / _best_seconds(device, lambda: target.copy_(source))


def _best_seconds(device: str, compute: "Callable[[], object]") -> float:
    import torch

    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    best = float("inf")
    for _ in range(20 if device == "cuda" else 3):
        begin = now()
        compute()
        best = min(best, now() - begin)
    return best


def machine(device: str) -> dict[str, Any]:
    return _gpu() if device == "cuda" else _cpu()


def _cpu() -> dict[str, Any]:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {"cpu": names[0] if names else platform.processor(), "threads": 1} | _versions()


def _gpu() -> dict[str, Any]:
    import torch

    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return {"gpu": torch.cuda.get_device_name(0), "driver": driver, "cuda": torch.version.cuda} | _versions()


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}
