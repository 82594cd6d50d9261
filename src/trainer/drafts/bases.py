"""Bases to choose from, with an estimate of the memory that each needs beside what this machine has free."""

import subprocess
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from trainer.backends.openai.catalog import catalog
from trainer.kinds import Kind, executes_here, is_service
from trainer.runs import list_runs
from trainer.start.config_text import TINY, num_parameters
from trainer.training.footprint import BYTES_PER_WEIGHT

DRIVER_SECONDS = 5.0
WORKING_BYTES = 2**30  # for activations, the adapter and the libraries, at the least
ROOM = 1.2  # of the weights, for what training holds of each layer
SHOWN_RUNS = 12
# Each is a chat model whose template is known to be exact here; those of Meta want an agreement at the hub first.
HUB = (
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "Small enough for a laptop; learns a form of answer, not knowledge."),
    ("HuggingFaceTB/SmolLM2-360M-Instruct", "A little more language than 135M, still on a CPU."),
    ("Qwen/Qwen2.5-0.5B-Instruct", "Many languages; a good first real model."),
    ("Qwen/Qwen2.5-1.5B-Instruct", "Useful answers on a small GPU."),
    ("HuggingFaceTB/SmolLM2-1.7B-Instruct", "English; open data and weights."),
    ("Qwen/Qwen2.5-7B-Instruct", "A strong general model for one GPU, in 4 bit."),
    ("meta-llama/Llama-3.1-8B-Instruct", "A strong general model; needs Meta's agreement at the hub."),
)


@dataclass(frozen=True, slots=True)
class ThisMachine:
    """Memory for training here: that of the first GPU, else the machine's; None where nobody can say."""

    device: str
    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A base with words on it; `fits` is None where that is not known, `quantization` what it needs its bytes with."""

    name: str
    about: str
    needed_bytes: int | None = None
    fits: bool | None = None
    quantization: str = "none"


def suggestions(kind: Kind, machine: ThisMachine) -> list[Suggestion]:
    """The bases that are proposed for a backend."""
    if is_service(kind):
        return _of_the_service(date.today())  # noqa: DTZ011  # a model's last day is a day of the user's calendar
    tiny = Suggestion(
        TINY, "Comes with the trainer: no download, trains in a minute; to try everything out.", None, True
    )
    return [tiny, *(_of_the_hub(name, about, kind, machine) for name, about in HUB)]


def earlier_runs(root: Path) -> list[Suggestion]:
    """Runs whose adapter can be trained further, newest first."""
    found = [run for run in reversed(list_runs(root)) if (run.adapter / "adapter_model.safetensors").is_file()]
    return [Suggestion(str(run.path), f"Trains the adapter of {run.name} further.") for run in found[:SHOWN_RUNS]]


def this_machine() -> ThisMachine:
    """The first GPU by its driver, else the machine's own memory; no library is loaded for it."""
    command = ["nvidia-smi", "--query-gpu=name,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_SECONDS)
        name, free = done.stdout.splitlines()[0].rsplit(",", 1)
        return ThisMachine(name.strip(), int(free) * 2**20)
    except (OSError, subprocess.TimeoutExpired, IndexError, ValueError):
        return ThisMachine("CPU", _free_memory())


def needed_bytes(parameters: float, on_gpu: bool, quantization: str) -> int:
    """An estimate of the memory to train a base of so many parameters in; the check computes it exactly."""
    each = BYTES_PER_WEIGHT.get(quantization, 2.0 if on_gpu else 4.0)
    return int(parameters * each * ROOM) + WORKING_BYTES


def _of_the_hub(name: str, about: str, kind: Kind, machine: ThisMachine) -> Suggestion:
    parameters = num_parameters(name)
    if parameters is None:
        return Suggestion(name, about)
    on_gpu = not executes_here(kind) or machine.device != "CPU"
    ways = ("none", "nf4") if on_gpu else ("none",)
    needs = {way: needed_bytes(parameters, on_gpu, way) for way in ways}
    free = machine.free_bytes if executes_here(kind) else None
    way = next((way for way in ways if free is not None and needs[way] <= free), ways[-1])
    shown = way if free is not None else "nf4" if parameters > 2.5e9 else "none"  # as trainer init proposes it
    return Suggestion(name, about, needs[shown], None if free is None else needs[way] <= free, shown)


def _of_the_service(today: date) -> list[Suggestion]:
    found = []
    for model in catalog().values():
        if "sft" not in model.methods or (model.tuning_until is not None and model.tuning_until < today):
            continue
        until = f"; new jobs until {model.tuning_until} at least" if model.tuning_until else ""
        found.append(Suggestion(model.name, f"{model.publisher}, {', '.join(model.training_types)}{until}."))
    return found


def _free_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return _free_by_psutil()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _free_by_psutil() -> int | None:
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    return int(psutil.virtual_memory().available)
