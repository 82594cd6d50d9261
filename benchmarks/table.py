"""What was measured, as figures and as a table."""

import statistics
from typing import Any

from shapes import Job

NAMES = {
    "ours": "this trainer",
    "trl": "TRL, defaults",
    "trl-packed": "TRL, bf16 packed",
    "trl-padded": "TRL, bf16 padded",
    "trl-flex": "TRL, bf16 packed, FlexAttention",
    "unsloth": "Unsloth, packed",
}
CLOCK = {"cpu": ("cpu", "CPU s"), "cuda": ("wall", "s")}  # by which arms are compared


def measured(steps: list[dict[str, Any]], job: Job, arm: str, rate: float) -> dict[str, Any]:
    """Of an arm's first step, which counts only where there is no other, and those after it."""
    (first, *rounds), step = steps, job.step
    rounds = rounds or [first]
    seconds = {clock: statistics.median(row[f"{clock}_seconds"] for row in rounds) for clock in ("cpu", "wall")}
    clock, _ = CLOCK[job.device]
    hardware, useful = (step.flops(job.shape, deduplicated) for deduplicated in (arm == "ours", False))
    parity = {key: first[key] for key in ("gradient_cosine", "gradient_norm_off", "loss_off")}
    return {
        "cpu_seconds": seconds["cpu"],
        f"{clock}_seconds_least": min(row[f"{clock}_seconds"] for row in rounds),
        "wall_seconds": seconds["wall"],
        "supervised_tokens_per_cpu_second": step.num_supervised / seconds["cpu"],
        "supervised_tokens_per_wall_second": step.num_supervised / seconds["wall"],
        "hardware_mfu": hardware / seconds[clock] / rate,
        "useful_mfu": useful / seconds[clock] / rate,
        "peak_memory_bytes": rounds[-1]["peak_memory_bytes"],
        "first_step_cpu_seconds": first["ready_cpu_seconds"] + first["cpu_seconds"],
        "first_step_wall_seconds": first["ready_wall_seconds"] + first["wall_seconds"],
        "checkpointing": first.get("checkpointing", False),
    } | parity


def table(result: dict[str, Any], job: Job) -> str:
    clock, unit = CLOCK[job.device]
    lines = [
        (
            f"| rows | arm | supervised tokens / {unit} | this trainer is | hardware MFU | useful MFU | peak GB "
            f"| first step {unit} | gradient cosine |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    ours = result["arms"].get("ours", {}).get(f"{clock}_seconds")
    for arm, row in result["arms"].items():
        ratio = "" if arm == "ours" or ours is None else f"{row[f'{clock}_seconds'] / ours:.1f}x faster"
        name = NAMES[arm] + (", checkpointing" if row["checkpointing"] else "")
        lines.append(
            f"| {job.rows_like} | {name} | {row[f'supervised_tokens_per_{clock}_second']:.1f} | {ratio} "
            f"| {row['hardware_mfu']:.0%} | {row['useful_mfu']:.0%} | {row['peak_memory_bytes'] / 1e9:.1f} "
            f"| {row[f'first_step_{clock}_seconds']:.0f} | {row['gradient_cosine']:.5f} |"
        )
    return "\n".join([f"{job.model}, quantization {job.quantization}", "", *lines])
