"""Parts c, d and e: a step of this trainer and of TRL's SFTTrainer on the same rows and weights, and its memory.

Before an arm is timed, its loss and gradient on the first rows and layers are held against one conversation at a time
in float32: a mask that lets one row see another is found there, since masks do not depend on the depth.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from arms import TrlGradient, gradient_of_ours, gradient_of_reference, plan, trl_trainer
from gate import agreement
from gpu.run import Measurement, Report, Setting, Skipped
from models import adapted_model
from our_step import OurStep, Updates
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from shapes import LEARNING_RATE, MODELS, Job
from transformers import TrainerCallback

from trainer.data.pack.packing import make_packs
from trainer.model.tree_attention import Kind

ROWS = 16
# Unshared first: where nothing is gained by sharing, the engine itself is measured.
SHAPES = ("unshared", "tool calls, published lengths", "short answers")
GATE_ROWS, GATE_LAYERS = 4, 2
STEPS = 3
# TRL's ways of running without flash-attn, the fastest of which counts. `packing` and `padding_free` mask by positions.
TRL: dict[str, tuple[str, dict[str, Any]]] = {
    "TRL, padded, SDPA": ("sdpa", {}),
    "TRL, packed, SDPA": ("sdpa", {"packing": True}),
    "TRL, padding-free, FlexAttention": ("flex_attention", {"padding_free": True, "max_length": None}),
}


def speed(part: str, model: str, quantization: str, shapes: tuple[str, ...]) -> Iterator[Measurement]:
    """For each shape the reference that all arms must agree with, then the arms; what compiles longest comes last."""
    late = []
    for shape in shapes:
        about = {"model": model, "quantization": quantization, "shape": shape}
        title = f"{model} {quantization}, {shape}"
        yield Measurement(part, f"{title}: reference", partial(refer, **about))
        yield Measurement(part, f"{title}: this trainer", partial(ours, **about))
        for arm, (attention, _) in TRL.items():
            one = Measurement(part, f"{title}: {arm}", partial(trl, **about, arm=arm))
            if attention == "sdpa" or shape == shapes[0]:
                yield one
            else:
                late.append(one)
    yield from late


def job_of(setting: Setting, model: str, quantization: str, shape: str, layers: int | None = None) -> Job:
    depth = layers or MODELS[model].layers
    rows = GATE_ROWS if setting.tiny else ROWS
    return Job(setting.device, model, depth, quantization, shape, rows, folder=setting.folder)


def _reference_file(job: Job) -> Path:
    return Path(job.folder) / f"{job.model}-{job.quantization}-{job.rows_like}.safetensors"


def make_model(job: Job, dtype: torch.dtype | None = None) -> Any:
    """In bfloat16, on a CPU in float32: many multiply bfloat16 a hundred times more slowly."""
    number = dtype or (torch.bfloat16 if job.device == "cuda" else torch.float32)
    return adapted_model(job.shape, number, torch.device(job.device), job.quantization)


def refer(setting: Setting, report: Report, model: str, quantization: str, shape: str) -> None:
    """Loss and gradient of the first rows, one conversation at a time in float32, on the first layers."""
    job = job_of(setting, model, quantization, shape, layers=GATE_LAYERS)
    loss, gradient = gradient_of_reference(make_model(job, torch.float32), job.step.examples[:GATE_ROWS], job)
    save_file(gradient, _reference_file(job), {"loss": repr(loss)})
    report(loss=loss, **job_of(setting, model, quantization, shape).step.describe())


def _gate(job: Job, loss: float, gradient: dict[str, torch.Tensor], report: Report) -> None:
    """Raises: AssertionError, where an arm computes something else; Skipped, where nothing says so."""
    file = _reference_file(job)
    if not file.exists():
        raise Skipped("the reference was not measured")
    with safe_open(file, "pt") as opened:
        expected = float(opened.metadata()["loss"])
    found, problem = agreement(loss, gradient, expected, load_file(file))
    report(**found)
    assert problem is None, f"computes something else than one conversation at a time: {problem}"


def ours(setting: Setting, report: Report, model: str, quantization: str, shape: str) -> None:
    """This trainer: gate, first step, three timed steps."""
    job = job_of(setting, model, quantization, shape, layers=GATE_LAYERS)
    _gate(job, *gradient_of_ours(make_model(job), job.step.examples[:GATE_ROWS], job), report)
    forget(setting)  # what the gate held is free again, and no peak
    job = job_of(setting, model, quantization, shape)
    found = plan(job)
    report(planned_bytes=found.peak_bytes, token_budget=found.token_budget, recomputed_layers=found.recompute_layers)
    # The plan is for rows that share nothing; this is what it says of the packs that these rows make.
    packs = make_packs(job.step.examples, found.token_budget)
    peaks = [found.footprint.peak(len(p.input_ids), len(p.position), found.recompute_layers) for p in packs]
    report(estimated_bytes=max(peaks))
    step = our_step(job, found.token_budget, found.recompute_layers, report=report)
    _report_steps(setting, report, job, [timed(setting, step) for _ in range(1 + STEPS)], deduplicated=True)


def our_step(
    job: Job,
    token_budget: int,
    layers: int,
    prepare: Callable[[Any], None] = lambda model: None,
    report: Report = lambda **values: None,
    kind: Kind | None = None,
) -> Callable[..., torch.Tensor]:
    """An optimizer step of a run, without reading anything back; it returns the loss on the device."""
    model = make_model(job)
    own = OurStep(model, torch.device(job.device), token_budget, layers, kind)
    report(attention=own.engine.kind, notes="; ".join(own.engine.notes))
    prepare(model)  # after the engine's probe, whose rows are like none of a run
    updates = Updates(model)
    model.train()

    def step(examples: Any = job.step.examples) -> torch.Tensor:
        loss = own.add_gradients(examples)
        updates()
        return loss

    return step


def trl(setting: Setting, report: Report, model: str, quantization: str, shape: str, arm: str) -> None:
    """TRL's own SFTTrainer in one of its ways: gate, first step, three timed steps."""
    attention, way = TRL[arm]
    if setting.device == "cpu":
        attention = "sdpa"  # FlexAttention has no backward pass there
    job = job_of(setting, model, quantization, shape, layers=GATE_LAYERS)
    path = Path(job.folder) / f"gradient-{os.getpid()}.safetensors"
    still = {"max_steps": 1, "learning_rate": 0.0, "max_grad_norm": 0.0, "logging_steps": 1}
    settings = way | {"gradient_checkpointing": False, "use_cpu": job.device == "cpu", "bf16": job.device == "cuda"}
    checked = trl_trainer(
        _trl_model(job, attention), job.step.examples[:GATE_ROWS], settings | still, TrlGradient(path)
    )
    checked.train()
    loss = next(row["loss"] for row in checked.state.log_history if "loss" in row)
    _gate(job, loss, load_file(path), report)
    del checked
    job = job_of(setting, model, quantization, shape)
    for share, checkpointing in ((1, False), (2, False), (4, False), (8, False), (4, True)):
        forget(setting)
        batch = max(1, job.rows // share)
        own = {"per_device_train_batch_size": batch, "gradient_checkpointing": checkpointing}
        clock = StepClock(setting)
        many = {"max_steps": 1 + STEPS, "learning_rate": LEARNING_RATE, "logging_strategy": "no"}
        try:
            trl_trainer(_trl_model(job, attention), job.step.examples, settings | own | many, clock).train()
        except torch.OutOfMemoryError:
            report(out_of_memory_with=f"{batch} rows{', checkpointing' if checkpointing else ''}")
            continue
        report(attention=attention, rows_at_a_time=batch, checkpointing=checkpointing, flash_attn="not installed")
        _report_steps(setting, report, job, clock.seconds, deduplicated=False)
        return
    raise Skipped("no batch size fits")


def _trl_model(job: Job, attention: str) -> Any:
    model = make_model(job)
    model.set_attn_implementation(attention)
    return model


class StepClock(TrainerCallback):
    """Seconds from one moment at which nothing is queued to the next."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.seconds, self.begin = setting, list[float](), 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        finish(self.setting)
        self.begin = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        finish(self.setting)
        self.seconds.append(time.perf_counter() - self.begin)


def timed(setting: Setting, step: Callable[[], Any]) -> float:
    finish(setting)
    begin = time.perf_counter()
    step()
    finish(setting)
    return time.perf_counter() - begin


def finish(setting: Setting) -> None:
    if setting.device == "cuda":
        torch.cuda.synchronize()


def forget(setting: Setting) -> None:
    gc.collect()
    if setting.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _report_steps(setting: Setting, report: Report, job: Job, seconds: list[float], deduplicated: bool) -> None:
    """Of the first step, which compiles, its time alone; of the others the median."""
    first, *rest = seconds
    median, step = sorted(rest)[len(rest) // 2], job.step
    report(first_step_seconds=first, step_seconds=median, step_seconds_all=rest)
    report(tokens_per_second=step.num_tokens / median, supervised_tokens_per_second=step.num_supervised / median)
    if setting.rate:
        hardware, useful = (step.flops(job.shape, once) / median / setting.rate for once in (deduplicated, False))
        report(hardware_mfu=hardware, useful_mfu=useful)
    if setting.device == "cuda":
        report(peak_bytes=torch.cuda.max_memory_allocated())
