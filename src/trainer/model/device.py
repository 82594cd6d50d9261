"""The device that computes, its number format, and its free memory."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config.schema import ModelConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

LARGE_FOR_A_CPU = 50_000_000  # parameters: builtin:tiny gains no speed from 16 bits, a base of 135M is twice as fast
BF16_CAPABILITY = (8, 0)  # Ampere is the first GPU generation with bfloat16 units


def pick_device() -> "torch.device":
    """The first GPU, else the CPU."""
    import torch

    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def pick_dtype(settings: ModelConfig, device: "torch.device", num_parameters: int = 0) -> "torch.dtype":
    """The number format of `model.dtype`, with `auto` resolved for the device and the size of the base."""
    import torch

    if settings.dtype != "auto":
        return getattr(torch, settings.dtype)  # type: ignore[no-any-return]  # the schema's literals are torch's names
    if device.type == "cpu":
        large = num_parameters >= LARGE_FOR_A_CPU and settings.quantization == "none"
        return torch.bfloat16 if large and has_bf16_units(torch.cpu.get_capabilities()) else torch.float32
    has_bf16 = torch.cuda.get_device_capability(device) >= BF16_CAPABILITY
    return torch.bfloat16 if has_bf16 else torch.float16


def has_bf16_units(capabilities: "Mapping[str, object]") -> bool:
    """True where a CPU multiplies matrices in bfloat16; others are many times slower in it than in float32."""
    return any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16"))


def send(tensor: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """The host's tensor on the device, without waiting for it: only pinned memory is copied beside what is computed."""
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


def free_memory_bytes(device: "torch.device") -> int:
    """Memory that new tensors can take."""
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def total_memory_bytes(device: "torch.device") -> int:
    """Memory of the device, whoever uses it now."""
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return int(psutil.virtual_memory().total)


def peak_memory_bytes(device: "torch.device") -> int:
    """The most memory held so far: tensors on a GPU, the whole process on a CPU."""
    import torch

    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else peak_process_bytes()


def peak_process_bytes() -> int:
    """The most memory that this process has held so far."""
    import resource
    import sys

    # Linux: getrusage starts at the peak of the process that started this one. Other systems have no such file.
    with suppress(FileNotFoundError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def give_memory_back() -> None:
    """Return to the system what is no longer used: glibc keeps most of a model that was freed."""
    import ctypes
    import gc

    gc.collect()
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def held_memory_bytes() -> int:
    """Bytes that this process holds now, as `top` shows them."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def describe(device: "torch.device") -> str:
    """The device as a person would name it."""
    import platform

    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"
