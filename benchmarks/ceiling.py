"""What this machine can do at best, and which it is: by its kind and versions, not by its name."""

import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate")


def gemm_rate(device: str) -> float:
    """FLOP per second, the best of several large bfloat16 products; on a CPU of one thread, by CPU time."""
    import torch

    if device == "cuda":
        return _gpu_gemm_rate(8192)
    torch.set_num_threads(1)
    a, b = (torch.randn(2048, 2048).bfloat16() for _ in range(2))
    best = float("inf")
    for _ in range(7):
        start = time.process_time()
        torch.mm(a, b)
        best = min(best, time.process_time() - start)
    return 2 * 2048**3 / best


def _gpu_gemm_rate(size: int) -> float:
    import torch

    a, b = (torch.randn(size, size, device="cuda").bfloat16() for _ in range(2))
    best = float("inf")
    for _ in range(30):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        torch.mm(a, b)
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end) / 1000)
    del a, b
    torch.cuda.empty_cache()
    return 2 * size**3 / best


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
