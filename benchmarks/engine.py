"""This trainer against TRL's SFTTrainer on the same rows: `make bench`, `make bench-gpu`, or `--help`.

Each arm is a process of its own and steps when told to, so that arms are interleaved on a noisy machine and each has
its own peak memory. Before anything is timed, loss and gradient of each arm are held against one conversation at a
time in float32. On a CPU times are CPU times of the process with one thread; wall times stand beside them. On a GPU
they are wall times from one moment at which nothing is queued to the next, and an arm has the GPU to itself: its
process is started again for each round.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

if __name__ == "__main__" and '"arm": "unsloth"' in sys.argv[-1]:
    import unsloth  # noqa: F401  # it replaces parts of what is imported after it

from arms import ARMS, OUT_OF_MEMORY, TRL_ARMS, work
from ceiling import gemm_rate, machine
from shapes import MODELS, SHAPES, Job
from table import measured, table

GATE_ROWS = 2
COSINE, NORM, LOSS = 0.999, 0.02, 2e-3  # a 16-bit arm must come this near to the reference
RESULTS = Path(__file__).parent / "results"
DEFAULTS: dict[str, dict[str, Any]] = {
    "cpu": {"models": ["135M"], "quantizations": ["none"], "rows": 16, "arms": list(ARMS[1:5])},
    "cuda": {"models": ["1B", "8B"], "quantizations": ["none", "nf4"], "rows": 64, "arms": list(ARMS[1:])},
}
WARM = 2  # steps of a process that is alone after its first one, before it is timed


class ArmEnded(Exception):
    """The arm's process ended before it answered."""

    def __init__(self, arm: str, code: int) -> None:
        super().__init__("out of memory" if code == OUT_OF_MEMORY else f"ended with {code}")
        self.out_of_memory = code == OUT_OF_MEMORY


class Worker:
    """An arm's process: it answers each line with a JSON object."""

    def __init__(self, job: Job) -> None:
        self.job = job
        command = [sys.executable, __file__, "--worker", json.dumps(asdict(job))]
        # This trainer sets it where it is imported, and the rows come through it in all arms.
        own = {"THP_MEM_ALLOC_ENABLE": str(int(job.arm == "ours"))}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, **pipes, text=True, env=os.environ | own)

    def ask(self, what: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith('{"'):  # TRL prints dictionaries of its own
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise ArmEnded(self.job.arm, self.process.wait())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(job: Job, arms: list[str], repeats: int, rate: float, apart: bool) -> dict[str, Any]:
    """Gate, first step, then `repeats` rounds of each arm."""
    with tempfile.TemporaryDirectory() as folder:
        job = replace(job, folder=folder)
        reference = Worker(replace(job, arm="reference"))
        expected = reference.ask("gate")["loss"]
        reference.close()
        rounds = (_apart if apart else _together)(job, arms, repeats, expected)
    rows = {arm: measured(steps, job, arm, rate) for arm, steps in rounds.items()}
    return {"step": job.step.describe(), "arms": rows}


Rounds = dict[str, list[dict[str, Any]]]  # of each arm the gate and the first step in one, then what is timed


def _together(job: Job, arms: list[str], repeats: int, expected: float) -> Rounds:
    """All processes at once, one step of each in turn."""
    workers = [Worker(replace(job, arm=arm)) for arm in arms]
    parity = {worker.job.arm: _gate(worker, expected) for worker in workers}
    rounds = {worker.job.arm: [parity[worker.job.arm] | worker.ask("step")] for worker in workers}
    for _ in range(repeats):
        for worker in workers:
            rounds[worker.job.arm].append(worker.ask("step"))
    for worker in workers:
        worker.close()
    return rounds


def _apart(job: Job, arms: list[str], repeats: int, expected: float) -> Rounds:
    """One process at a time, each anew in each round; without checkpointing where that fits."""
    jobs, rounds = [replace(job, arm=arm) for arm in arms], Rounds()
    for _ in range(max(1, repeats)):
        for number, own in enumerate(jobs):
            jobs[number], steps = _fitted(own, expected)
            if steps:
                rounds.setdefault(own.arm, steps[:1]).extend(steps[1:])
    return rounds


def _fitted(job: Job, expected: float) -> tuple[Job, list[dict[str, Any]]]:
    """The steps of an arm, with checkpointing where it can and must; none where it ended before them."""
    can_checkpoint = "gradient_checkpointing" in TRL_ARMS.get(job.arm, {})
    try:
        return job, _alone(job, expected)
    except ArmEnded as ended:
        if ended.out_of_memory and can_checkpoint and not job.checkpointing:
            return _fitted(replace(job, checkpointing=True), expected)
        print(f"{job.arm}: {ended}", flush=True)
        return job, []


def _alone(job: Job, expected: float) -> list[dict[str, Any]]:
    worker = Worker(job)
    first = _gate(worker, expected) | worker.ask("step") | {"checkpointing": job.checkpointing}
    steps = [worker.ask("step") for _ in range(WARM + 1)]
    worker.close()
    return [first, steps[-1]]


def _gate(worker: Worker, expected: float) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    loss, folder = worker.ask("gate")["loss"], Path(worker.job.folder)
    mine, theirs = (load_file(folder / f"{arm}.safetensors") for arm in (worker.job.arm, "reference"))
    assert mine.keys() == theirs.keys()
    a, b = (torch.cat([tensors[key].flatten().double() for key in sorted(tensors)]) for tensors in (mine, theirs))
    cosine, norm = float(a @ b / a.norm() / b.norm()), abs(float(a.norm() / b.norm()) - 1)
    off = abs(loss / expected - 1)
    if cosine < COSINE or norm > NORM or off > LOSS:
        found = f"cosine {cosine:.5f}, norm off {norm:.4f}, loss off {off:.5f}"
        raise SystemExit(f"{worker.job.arm}: fails the gate, {found}")
    return {"gradient_cosine": cosine, "gradient_norm_off": norm, "loss_off": off}


def _arms(options: argparse.Namespace) -> list[str]:
    """Those that can run here."""
    if "unsloth" in options.arms and importlib.util.find_spec("unsloth") is None:
        print("unsloth: is not installed, so not compared")
        return [arm for arm in options.arms if arm != "unsloth"]
    return list(options.arms)


def _jobs(options: argparse.Namespace) -> list[Job]:
    jobs = []
    for model, quantization, shape in product(options.models, options.quantizations, options.shapes):
        if SHAPES[shape] is not None and "TRAINER_SAMPLE_DATA" not in os.environ:
            print(f"{shape}: skipped, TRAINER_SAMPLE_DATA is not set")
            continue
        layers = options.layers or MODELS[model].layers
        jobs.append(Job(options.device, model, layers, quantization, shape, options.rows))
    return jobs


def _file(job: Job) -> str:
    """On a CPU there is one model."""
    what = "" if job.device == "cpu" else f"{job.model}-{job.quantization}-"
    device = "cpu" if job.device == "cpu" else "gpu"
    return f"engine-{device}-{what}{job.rows_like.replace(' ', '-')}-{job.rows}-rows.json".lower()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=DEFAULTS, default="cpu")
    parser.add_argument("--models", nargs="+", choices=MODELS, help="by their shapes; weights are random")
    parser.add_argument("--quantizations", nargs="+", choices=["none", "nf4"])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--arms", nargs="+", choices=ARMS[1:])
    parser.add_argument("--rows", type=int, help="conversations per optimizer step")
    parser.add_argument("--layers", type=int, help="fewer than the model has, for a quick look")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds; 0 takes the first step")
    parser.add_argument("--apart", action="store_true", help="one process at a time, as on a GPU")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name, value in DEFAULTS[options.device].items():
        setattr(options, name, getattr(options, name) or value)
    return options


def main() -> None:
    options = _options()
    if options.worker:
        work(Job(**json.loads(options.worker)), GATE_ROWS)
        return
    os.environ |= {"TOKENIZERS_PARALLELISM": "false"} | ({"OMP_NUM_THREADS": "1"} if options.device == "cpu" else {})
    load, arms = os.getloadavg()[0], _arms(options)
    options.results.mkdir(exist_ok=True)
    for job in _jobs(options):
        rate = gemm_rate(job.device)
        apart = options.apart or job.device == "cuda"
        result = compare(job, arms, options.repeats, rate, apart) | {"gemm_flop_per_second": rate}
        print(table(result, job), flush=True)
        settings = asdict(job) | {"repeats": options.repeats, "load_average": load}
        settings = {key: value for key, value in settings.items() if key not in ("arm", "folder", "checkpointing")}
        path = options.results / _file(job)
        path.write_text(json.dumps({"machine": machine(job.device), "settings": settings} | result, indent=1) + "\n")
        print(f"written to {path}", flush=True)


if __name__ == "__main__":
    main()
