"""What was measured, as figures and as a table."""

import statistics
from typing import Any

from shapes import Job

NAMES = {
    "ours": "this trainer",
    "trl": "TRL, defaults",
    "trl-packed": "TRL, bf16 packed",
    "trl-padded": "TRL, bf16 padded",
}


def measured(steps: list[dict[str, Any]], job: Job, arm: str, rate: float) -> dict[str, Any]:
    """Of an arm's first step, which counts only where there is no other, and those after it."""
    (first, *rounds), step = steps, job.step
    rounds = rounds or [first]
    seconds = {clock: statistics.median(row[f"{clock}_seconds"] for row in rounds) for clock in ("cpu", "wall")}
    hardware, useful = (step.flops(job.shape, deduplicated) for deduplicated in (arm == "ours", False))
    parity = {key: first[key] for key in ("gradient_cosine", "gradient_norm_off", "loss_off")}
    return {
        "cpu_seconds": seconds["cpu"],
        "cpu_seconds_least": min(row["cpu_seconds"] for row in rounds),
        "wall_seconds": seconds["wall"],
        "supervised_tokens_per_cpu_second": step.num_supervised / seconds["cpu"],
        "supervised_tokens_per_wall_second": step.num_supervised / seconds["wall"],
        "hardware_mfu": hardware / seconds["cpu"] / rate,
        "useful_mfu": useful / seconds["cpu"] / rate,
        "peak_memory_bytes": rounds[-1]["peak_memory_bytes"],
        "first_step_cpu_seconds": first["ready_cpu_seconds"] + first["cpu_seconds"],
        "first_step_wall_seconds": first["ready_wall_seconds"] + first["wall_seconds"],
    } | parity


def table(result: dict[str, Any], job: Job) -> str:
    lines = [
        (
            "| rows | arm | supervised tokens / CPU s | this trainer is | hardware MFU | useful MFU | peak GB "
            "| first step CPU s | gradient cosine |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    ours = result["arms"].get("ours", {}).get("cpu_seconds")
    for arm, row in result["arms"].items():
        ratio = "" if arm == "ours" or ours is None else f"{row['cpu_seconds'] / ours:.1f}x faster"
        lines.append(
            f"| {job.rows_like} | {NAMES[arm]} | {row['supervised_tokens_per_cpu_second']:.1f} | {ratio} "
            f"| {row['hardware_mfu']:.0%} | {row['useful_mfu']:.0%} | {row['peak_memory_bytes'] / 1e9:.1f} "
            f"| {row['first_step_cpu_seconds']:.0f} | {row['gradient_cosine']:.5f} |"
        )
    return "\n".join([f"{job.model}, quantization {job.quantization}", "", *lines])
