"""Several processes, one on each GPU (gloo on a CPU): the gradient of one process, tokens per second, bytes exchanged.

Part r of `gpu_minutes.py`. The processes begin as its measurements do, with torchrun's variables.
"""

import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gpu.exactness import TINY, TINY_WINDOW
from gpu.run import Measurement, Report, Setting
from gpu.speed import finish
from models import adapted_model
from our_step import OurStep, Updates
from shapes import MODELS, Job
from torch import distributed

from tests.gpu.steps import build, packed, rows
from trainer.model.rms_norm import use_lean_norms
from trainer.model.sharding import shard_base
from trainer.training.engine import Engine
from trainer.training.ranks import Ranks, join

if TYPE_CHECKING:
    pass

STEPS = 3
ROWS = 16
EXACT = 1e-3  # relative error of the gradient; the models that are held against one process compute in float32


@dataclass(frozen=True)
class Case:
    """What the processes train together."""

    windowed: bool = False
    quantized: bool = False
    sharded: bool = False
    speed_of: str = ""  # a model's shape; without one the gradient is compared on a small model


CASES = {
    "gradient, full attention": Case(),
    "gradient, sliding window": Case(windowed=True),
    "gradient, nf4": Case(quantized=True),
    "gradient, nf4, sliding window": Case(quantized=True, windowed=True),
    "gradient, sharded base, full attention": Case(sharded=True),
    "gradient, sharded base, sliding window": Case(sharded=True, windowed=True),
    "speed, whole base in each": Case(speed_of="8B"),
    "speed, sharded base": Case(speed_of="1B", sharded=True),
}


def ranks_measurements(size: int) -> list[Measurement]:
    return [
        Measurement("r", f"{size} processes, {name}", partial(measure, size=size, case=case))
        for name, case in CASES.items()
    ]


def measure(setting: Setting, report: Report, size: int, case: Case) -> None:
    """Speed is measured with one process, too."""
    if not case.speed_of:
        report(**_together(setting, case, size))
        return
    alone = _together(setting, replace(case, sharded=False), 1)["tokens_per_second"]
    report(tokens_per_second_of_one=alone)
    values = _together(setting, case, size)
    report(**values, times_one=values["tokens_per_second"] / alone)


def _together(setting: Setting, case: Case, size: int) -> dict[str, Any]:
    """What the first process found. Raises: RuntimeError, where one of them failed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(size)}
    file = Path(setting.folder) / f"ranks-{os.getpid()}.json"
    context = multiprocessing.get_context(setting.start)
    started = [
        context.Process(
            target=_work, args=(setting, case, file, meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        )
        for rank in range(size)
    ]
    for process in started:
        process.start()
    while any(process.is_alive() for process in started):
        if any(process.exitcode for process in started):
            for process in started:  # they would wait for the one that is gone
                process.kill()
        time.sleep(0.02)
    if any(process.exitcode for process in started):
        raise RuntimeError(f"the processes ended with {[process.exitcode for process in started]}")
    values: dict[str, Any] = json.loads(file.read_text())
    return values


def _work(setting: Setting, case: Case, file: Path, variables: dict[str, str]) -> None:
    """One process: the first writes what was found."""
    os.environ |= variables
    ranks = join()
    found = (_speed if case.speed_of else _gradient)(setting, case, ranks)
    if ranks.is_first:
        file.write_text(json.dumps(found))
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _gradient(setting: Setting, case: Case, ranks: Ranks) -> dict[str, Any]:
    """The step's gradient of all processes against that of this one alone."""
    device = torch.device(setting.device)
    examples = rows(prompt=60) if setting.tiny else rows()
    shape = (TINY | ({"sliding_window": TINY_WINDOW} if case.windowed else {})) if setting.tiny else {}
    make = partial(build, dtype=torch.float32, quantized=case.quantized, windowed=case.windowed, **shape)
    alone = make(device=device)
    expected = packed(alone, Engine(alone, device), examples, 700)
    del alone
    model = _sharded(make(device=torch.device("cpu")), device, ranks) if case.sharded else make(device=device)
    step, exchanged = OurStep(model, device, 700, ranks=ranks, sharded=case.sharded), Exchanged()
    with counting(exchanged):
        step.add_gradients(examples)
    found = torch.cat([weight.grad.double().flatten().cpu() for weight in step.weights if weight.grad is not None])
    error = float((found - expected.gradient).norm() / expected.gradient.norm())
    return {"gradient_error": error, "exact": error <= EXACT, "attention": step.engine.kind} | exchanged.values()


def _speed(setting: Setting, case: Case, ranks: Ranks) -> dict[str, Any]:
    device = torch.device(setting.device)
    shape = "tiny" if setting.tiny else case.speed_of
    job = Job(setting.device, shape, MODELS[shape].layers, "none", "unshared", ROWS // 2 if setting.tiny else ROWS)
    place = torch.device("cpu") if case.sharded else device
    dtype = torch.bfloat16 if setting.device == "cuda" else torch.float32
    model = adapted_model(job.shape, dtype, place)
    if case.sharded:
        model = _sharded(model, device, ranks)
    step, updates = OurStep(model, device, 32_768, ranks=ranks, sharded=case.sharded), Updates(model)
    seconds, exchanged = [], Exchanged()
    for _ in range(1 + STEPS):
        exchanged = Exchanged()
        finish(setting)
        begin = time.perf_counter()
        with counting(exchanged):
            step.add_gradients(job.step.examples)
        updates()
        finish(setting)
        seconds.append(time.perf_counter() - begin)
    median = sorted(seconds[1:])[STEPS // 2]
    return {"tokens_per_second": job.step.num_tokens / median, "step_seconds": median} | exchanged.values()


def _sharded(model: Any, device: torch.device, ranks: Ranks) -> Any:
    use_lean_norms(model.get_base_model())
    return shard_base(model, device, ranks.will_come)


@dataclass
class Exchanged:
    """What one process takes part in exchanging: gradients, and layers of a sharded base that are gathered."""

    gradients: int = 0
    layers: int = 0

    def values(self) -> dict[str, int]:
        return {"gradient_exchanged_bytes": self.gradients, "layers_gathered_bytes": self.layers}


@contextmanager
def counting(exchanged: Exchanged) -> Iterator[None]:
    """While it lasts, what torch.distributed is handed is counted."""
    name = "all_gather_single" if hasattr(distributed, "all_gather_single") else "all_gather_into_tensor"
    reduce, gather = distributed.all_reduce, getattr(distributed, name)

    def counted_reduce(tensor: Any, *arguments: Any, **named: Any) -> Any:
        if tensor.numel() > 1:  # else it is a question to all, not an exchange of gradients
            exchanged.gradients += tensor.numel() * tensor.element_size()
        return reduce(tensor, *arguments, **named)

    def counted_gather(output: Any, *arguments: Any, **named: Any) -> Any:
        exchanged.layers += output.numel() * output.element_size()
        return gather(output, *arguments, **named)

    counted: dict[str, Callable[..., Any]] = {"all_reduce": counted_reduce, name: counted_gather}
    for own, function in counted.items():
        setattr(distributed, own, function)
    try:
        yield
    finally:
        distributed.all_reduce = reduce
        setattr(distributed, name, gather)
