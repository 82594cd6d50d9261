"""Parts f, g and h: one step of this trainer from near."""

import warnings
from pathlib import Path
from typing import Any

import torch
from arms import plan
from gpu.kernels import on_cpu, on_gpu
from gpu.run import Report, Setting
from gpu.speed import SHAPES, STEPS, finish, job_of, our_step, timed
from shapes import MODELS
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity

from trainer.model.checkpointing import recomputable


def profile(setting: Setting, report: Report, model: str) -> None:
    """Share of a step by kind of work, the largest kernels, and when the device had nothing to do."""
    job = job_of(setting, model, "none", SHAPES[0])
    found = plan(job)
    step = our_step(job, found.token_budget, found.recompute_layers)
    for _ in range(2):
        timed(setting, step)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if setting.device == "cuda" else [])]
    with torch.profiler.profile(activities=activities) as recorded:
        seconds = timed(setting, step)
    report(step_seconds=seconds, **(on_gpu if setting.device == "cuda" else on_cpu)(recorded, seconds))


def waits(setting: Setting, report: Report, model: str) -> None:
    """Graphs compiled after the first step, for rows of other lengths; and what in a step waits for the device."""
    job = job_of(setting, model, "none", "short answers")
    step = our_step(job, 10_000, 0)
    step()
    before = counters["stats"]["unique_graphs"]
    for count in range(2, job.rows, max(1, job.rows // 5)):
        step(job.step.examples[:count])
    report(recompilations=counters["stats"]["unique_graphs"] - before)
    if setting.device == "cpu":
        report(synchronizations="not measured on a CPU")
        return
    finish(setting)
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        step()
    torch.cuda.set_sync_debug_mode("default")
    waited = [f"{Path(one.filename).name}:{one.lineno}" for one in seen if "synchroniz" in str(one.message)]
    report(synchronizations=len(waited), synchronized_at=waited[:10])


def compiled(setting: Setting, report: Report, model: str, on: bool) -> None:
    """A step with each layer of the model compiled by itself, and without; a quarter of the layers, for the time."""
    job = job_of(setting, model, "none", SHAPES[0], layers=max(1, MODELS[model].layers // 4))

    backend, kind = "inductor", None
    if setting.device == "cpu":  # C++ is compiled for minutes, and each block of segment attention makes a graph larger
        backend, kind = "aot_eager", "dense"

    def prepare(adapted: Any) -> None:
        for layer in recomputable(adapted.get_base_model()) if on else ():
            layer.compile(dynamic=True, backend=backend)

    step = our_step(job, 32_768, 0, prepare, kind=kind)
    first = timed(setting, step)
    report(first_step_seconds=first, layers=job.layers, graphs=counters["stats"]["unique_graphs"])
    report(step_seconds=sorted(timed(setting, step) for _ in range(STEPS))[STEPS // 2])
