"""This trainer against TRL's SFTTrainer on the same rows, on a CPU: `make bench`, or `--help`.

Each arm is a process of its own and steps when told to, so that arms are interleaved on a noisy machine and each has
its own peak memory. Before anything is timed, loss and gradient of each arm are held against one conversation at a
time in float32. Times are CPU times of the process with one thread; wall times stand beside them. `gpu_minutes.py`
measures a GPU.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from arms import ARMS, gradient_file, work
from ceiling import gemm_rate, machine
from gate import agreement
from shapes import MODELS, SHAPES, Job
from table import measured, table
from worker import Worker

GATE_ROWS = 2
RESULTS = Path(__file__).parent / "results"


Rounds = dict[str, list[dict[str, Any]]]  # of each arm the gate and the first step in one, then what is timed


def compare(job: Job, arms: list[str], repeats: int, rate: float) -> dict[str, Any]:
    """Gate, first step, then `repeats` rounds of each arm: all processes at once, one step of each in turn."""
    with tempfile.TemporaryDirectory() as folder:
        job = replace(job, folder=folder)
        reference = Worker(__file__, replace(job, arm="reference"))
        expected = reference.ask("gate")["loss"]
        reference.close()
        workers = [Worker(__file__, replace(job, arm=arm), is_ours=arm == "ours") for arm in arms]
        parity = {worker.job.arm: _gate(worker, expected) for worker in workers}
        rounds = {worker.job.arm: [parity[worker.job.arm] | worker.ask("step")] for worker in workers}
        for _ in range(repeats):
            for worker in workers:
                rounds[worker.job.arm].append(worker.ask("step"))
        for worker in workers:
            worker.close()
    rows = {arm: measured(steps, job, arm, rate) for arm, steps in rounds.items()}
    return {"step": job.step.describe(), "arms": rows}


def _gate(worker: Worker, expected: float) -> dict[str, Any]:
    from safetensors.torch import load_file

    loss = worker.ask("gate")["loss"]
    mine, theirs = (load_file(gradient_file(replace(worker.job, arm=arm))) for arm in (worker.job.arm, "reference"))
    found, problem = agreement(loss, mine, expected, theirs)
    if problem is not None:
        raise SystemExit(f"{worker.job.arm}: fails the gate, {problem}")
    return found


def _jobs(options: argparse.Namespace) -> list[Job]:
    jobs = []
    for model, quantization, shape in product(options.models, options.quantizations, options.shapes):
        if SHAPES[shape] is not None and "TRAINER_SAMPLE_DATA" not in os.environ:
            print(f"{shape}: skipped, TRAINER_SAMPLE_DATA is not set")
            continue
        layers = options.layers or MODELS[model].layers
        jobs.append(Job("cpu", model, layers, quantization, shape, options.rows))
    return jobs


def _file(job: Job) -> str:
    return f"engine-cpu-{job.rows_like.replace(' ', '-')}-{job.rows}-rows.json".lower()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["135M"], help="by shape; weights are random")
    parser.add_argument("--quantizations", nargs="+", choices=["none", "nf4"], default=["none"])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES)[:4])
    parser.add_argument("--arms", nargs="+", choices=ARMS[1:], default=list(ARMS[1:]))
    parser.add_argument("--rows", type=int, default=16, help="conversations per optimizer step")
    parser.add_argument("--layers", type=int, help="fewer than the model has, for a quick look")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds; 0 takes the first step")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = _options()
    if options.worker:
        work(Job(**json.loads(options.worker)), GATE_ROWS)
        return
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    load = os.getloadavg()[0]
    options.results.mkdir(exist_ok=True)
    for job in _jobs(options):
        rate = gemm_rate()
        result = compare(job, options.arms, options.repeats, rate) | {"gemm_flop_per_second": rate}
        print(table(result, job), flush=True)
        settings = asdict(job) | {"repeats": options.repeats, "load_average": load}
        settings = {key: value for key, value in settings.items() if key not in ("arm", "folder")}
        path = options.results / _file(job)
        path.write_text(json.dumps({"machine": machine("cpu"), "settings": settings} | result, indent=1) + "\n")
        print(f"written to {path}", flush=True)


if __name__ == "__main__":
    main()
