"""What a profiled step spent its time on."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

LARGEST = 12  # kernels shown
GAP = 10e-6  # seconds: shorter ones lie between any two kernels

# Parts of a kernel's name, on a GPU and on a CPU; the first that fits names its kind.
KINDS = {
    "attention": ("flex_attention", "flash", "fmha", "sdpa", "triton_tem", "bmm", "baddbmm"),
    "NF4": ("dequantize", "quantize", "gemv_4bit"),
    "matrix products": ("gemm", "nvjet", "cutlass", "cublas", "aten::mm", "aten::addmm", "sm90_xmma"),
    "copies": ("memcpy", "memset", "copy_", "aten::cat", "aten::index"),
    "softmax and loss": ("softmax", "argmax", "gather"),
    "optimizer": ("adam", "multi_tensor", "norm"),
}
Spans = Sequence[tuple[str, float, float]]  # of each kernel its name, and its begin and end in seconds


def on_gpu(recorded: Any, seconds: float) -> dict[str, Any]:
    """What the device did, by its own clock: an operator of the host has its kernels' time once more."""
    from torch.autograd import DeviceType

    spans = [
        (event.name, event.time_range.start / 1e6, event.time_range.end / 1e6)
        for event in recorded.events()
        if event.device_type != DeviceType.CPU and not event.is_user_annotation
    ]
    return shares([(name, end - begin) for name, begin, end in spans], seconds) | gaps(spans, seconds)


def on_cpu(recorded: Any, seconds: float) -> dict[str, Any]:
    return shares([(event.key, event.self_cpu_time_total / 1e6) for event in recorded.key_averages()], seconds)


def shares(times: Sequence[tuple[str, float]], seconds: float) -> dict[str, Any]:
    """Shares of the step's time by kind and of its largest kernels."""
    kinds: dict[str, float] = {}
    names: dict[str, float] = {}
    for name, spent in times:
        kind = next((kind for kind, parts in KINDS.items() if any(part in name.lower() for part in parts)), "others")
        kinds[kind] = kinds.get(kind, 0.0) + spent / seconds
        names[name[:120]] = names.get(name[:120], 0.0) + spent / seconds
    return {"shares": _rounded(kinds, len(kinds)), "largest": _rounded(names, LARGEST)}


def _rounded(values: dict[str, float], count: int) -> dict[str, float]:
    return {name: round(value, 4) for name, value in sorted(values.items(), key=lambda pair: -pair[1])[:count]}


def gaps(spans: Spans, seconds: float) -> dict[str, Any]:
    """The share of the step in which the device had nothing to do, how often, and the longest of these times."""
    busy: list[tuple[float, float]] = []
    for _, begin, end in sorted(spans, key=lambda span: span[1]):
        if busy and begin <= busy[-1][1]:  # beside another, on another stream
            busy[-1] = (busy[-1][0], max(busy[-1][1], end))
        else:
            busy.append((begin, end))
    between = [after[0] - before[1] for before, after in pairwise(busy)]
    return {
        "share_idle": 1 - sum(end - begin for begin, end in busy) / seconds,
        "gaps": sum(gap > GAP for gap in between),
        "longest_gap_seconds": max(between, default=0.0),
    }
