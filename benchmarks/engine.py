"""This trainer against TRL's SFTTrainer on the same rows: `make bench`, or `python benchmarks/engine.py --help`.

Each arm is a process of its own and steps when told to, so that arms are interleaved on a noisy machine and each has
its own peak memory. Before anything is timed, loss and gradient of each arm are held against one conversation at a
time in float32. Times are CPU times of the process with one thread; wall times stand beside them.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from arms import ARMS, work
from shapes import SHAPES, Step, step_of

GATE_ROWS = 2
COSINE, NORM, LOSS = 0.999, 0.02, 2e-3  # a 16-bit arm must come this near to the reference
RESULTS = Path(__file__).parent / "results"
NAMES = {
    "ours": "this trainer",
    "trl": "TRL, defaults",
    "trl-packed": "TRL, bf16 packed",
    "trl-padded": "TRL, bf16 padded",
}


class Worker:
    """An arm's process: it answers each line with a JSON object."""

    def __init__(self, arm: str, options: argparse.Namespace, shape: str, folder: Path) -> None:
        self.arm = arm
        command = [sys.executable, __file__, "--worker", arm, "--shapes", shape, "--folder", str(folder)]
        command += ["--rows", str(options.rows), "--layers", str(options.layers)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, what: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith('{"'):  # TRL prints dictionaries of its own
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise SystemExit(f"the arm {self.arm!r} ended with {self.process.wait()}")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(shape: str, options: argparse.Namespace) -> dict[str, Any]:
    """Gate, first step, then `repeats` rounds of one step of each arm."""
    step = step_of(shape, options.rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reference = Worker("reference", options, shape, folder)
        expected = reference.ask("gate")["loss"]
        reference.close()
        workers = [Worker(arm, options, shape, folder) for arm in options.arms]
        parity = {worker.arm: _gate(worker, expected, folder) for worker in workers}
        first = {worker.arm: worker.ask("step") for worker in workers}
        rounds: dict[str, list[dict[str, Any]]] = {arm: [] for arm in first}
        for _ in range(options.repeats):
            for worker in workers:
                rounds[worker.arm].append(worker.ask("step"))
        for worker in workers:
            worker.close()
    rate = options.gemm
    rows = {arm: _measured(first[arm], rounds[arm], step, options.layers, arm, rate) | parity[arm] for arm in rounds}
    return {"step": step.describe(), "arms": rows}


def _gate(worker: Worker, expected: float, folder: Path) -> dict[str, float]:
    import torch
    from safetensors.torch import load_file

    loss = worker.ask("gate")["loss"]
    mine, theirs = load_file(folder / f"{worker.arm}.safetensors"), load_file(folder / "reference.safetensors")
    assert mine.keys() == theirs.keys()
    a, b = (torch.cat([tensors[key].flatten().double() for key in sorted(tensors)]) for tensors in (mine, theirs))
    cosine, norm = float(a @ b / a.norm() / b.norm()), abs(float(a.norm() / b.norm()) - 1)
    off = abs(loss / expected - 1)
    if cosine < COSINE or norm > NORM or off > LOSS:
        raise SystemExit(f"{worker.arm}: fails the gate, cosine {cosine:.5f}, norm off {norm:.4f}, loss off {off:.5f}")
    return {"gradient_cosine": cosine, "gradient_norm_off": norm, "loss_off": off}


def _measured(
    first: dict[str, Any], rounds: list[dict[str, Any]], step: Step, layers: int, arm: str, rate: float
) -> dict[str, float]:
    rounds = rounds or [first]
    cpu = statistics.median(row["cpu_seconds"] for row in rounds)
    wall = statistics.median(row["wall_seconds"] for row in rounds)
    hardware = step.flops(layers, deduplicated=arm == "ours")
    return {
        "cpu_seconds": cpu,
        "cpu_seconds_least": min(row["cpu_seconds"] for row in rounds),
        "wall_seconds": wall,
        "supervised_tokens_per_cpu_second": step.num_supervised / cpu,
        "supervised_tokens_per_wall_second": step.num_supervised / wall,
        "hardware_mfu": hardware / cpu / rate,
        "useful_mfu": step.flops(layers, deduplicated=False) / cpu / rate,
        "peak_memory_bytes": rounds[-1]["peak_memory_bytes"],
        "first_step_cpu_seconds": first["ready_cpu_seconds"] + first["cpu_seconds"],
        "first_step_wall_seconds": first["ready_wall_seconds"] + first["wall_seconds"],
    }


def gemm_rate() -> float:
    """FLOP per CPU second of one thread, the best of several large bfloat16 products."""
    import torch

    torch.set_num_threads(1)
    a, b = (torch.randn(2048, 2048).bfloat16() for _ in range(2))
    best = float("inf")
    for _ in range(7):
        start = time.process_time()
        torch.mm(a, b)
        best = min(best, time.process_time() - start)
    return 2 * 2048**3 / best


def table(results: dict[str, Any]) -> str:
    lines = [
        (
            "| rows | arm | supervised tokens / CPU s | this trainer is | hardware MFU | useful MFU | peak GB "
            "| first step CPU s | gradient cosine |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for shape, result in results.items():
        ours = result["arms"]["ours"]["cpu_seconds"]
        for arm, row in result["arms"].items():
            ratio = "" if arm == "ours" else f"{row['cpu_seconds'] / ours:.1f}x faster"
            lines.append(
                f"| {shape} | {NAMES[arm]} | {row['supervised_tokens_per_cpu_second']:.1f} | {ratio} "
                f"| {row['hardware_mfu']:.0%} | {row['useful_mfu']:.0%} | {row['peak_memory_bytes'] / 1e9:.1f} "
                f"| {row['first_step_cpu_seconds']:.0f} | {row['gradient_cosine']:.5f} |"
            )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "peft", "trl", "accelerate")}
    return {
        "cpu": names[0] if names else platform.processor(),
        "threads": 1,
        "python": platform.python_version(),
    } | versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--arms", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--rows", type=int, default=16, help="conversations per optimizer step")
    parser.add_argument("--layers", type=int, default=30, help="30 is the 135M shape; fewer for a quick look")
    parser.add_argument(
        "--repeats", type=int, default=3, help="timed steps of each arm after a first; 0 takes the first"
    )
    parser.add_argument("--worker", choices=list(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.shapes[0], options.rows, options.layers, GATE_ROWS, options.folder)
        return
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    results: dict[str, Any] = {}
    load = os.getloadavg()[0]
    for shape in options.shapes:
        if SHAPES[shape] is not None and "TRAINER_SAMPLE_DATA" not in os.environ:
            print(f"{shape}: skipped, TRAINER_SAMPLE_DATA is not set")
            continue
        options.gemm = gemm_rate()
        results[shape] = compare(shape, options) | {"gemm_flop_per_second": options.gemm}
        print(table({shape: results[shape]}), flush=True)
        settings = {"rows": options.rows, "layers": options.layers, "repeats": options.repeats, "load_average": load}
        found = {"machine": machine(), "settings": settings, "shape": shape} | results[shape]
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"engine-cpu-{shape.replace(' ', '-').lower()}-{options.rows}-rows.json"
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"written to {path.relative_to(RESULTS.parent.parent)}", flush=True)


if __name__ == "__main__":
    main()
