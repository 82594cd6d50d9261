"""The arms of the benchmarks: each makes the same model and takes the same optimizer step in its own way."""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from models import adapted_model, config_of, fill_adapter, random_base
from shapes import LEARNING_RATE, RANK, Job
from transformers import TrainerCallback

from trainer.data.render.rendering import Example
from trainer.model.device import peak_process_bytes
from trainer.training.memory import MAX_BUDGET

if TYPE_CHECKING:
    from trainer.training.memory import MemoryPlan

MOST_MEMORY = 12 * 2**30  # on a CPU an arm that wants more ends, and not the machine it shares with others


def reference(model: Any, examples: Sequence[Example], job: Job) -> float:
    """One conversation at a time, the model's own logits: adds the gradient and returns the loss."""
    device, total, loss = torch.device(job.device), _num_supervised(examples), 0.0
    for example in examples:
        logits = model(input_ids=torch.tensor([example.input_ids], device=device)).logits[0, :-1]
        labels = torch.tensor(example.labels[1:], device=device)
        nll = torch.nn.functional.cross_entropy(logits, labels, reduction="sum") / total
        nll.backward()
        loss += nll.item()
    return loss


def ours(model: Any, job: Job) -> Callable[[Sequence[Example]], float]:
    """This trainer with the device's largest token budget: adds the gradient and returns the loss."""
    from our_step import OurStep  # imports the engine: a time until ready includes that

    step = OurStep(model, torch.device(job.device), MAX_BUDGET[job.device])
    for note in step.engine.notes:
        print(note, file=sys.stderr)
    return lambda examples: step.add_gradients(examples).item()


def gradient_of_reference(model: Any, examples: Sequence[Example], job: Job) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradient, in float32 on the host."""
    return reference(model, examples, job), gradients(model)


def gradient_of_ours(model: Any, examples: Sequence[Example], job: Job) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradient of one pack of all rows, in float32 on the host."""
    return ours(model, job)(examples), gradients(model)


def plan(job: Job) -> "MemoryPlan":
    """Plan memory as a run does; call it before the model takes any."""
    from trainer.config import RunConfig
    from trainer.data.pack.packing import Sharing
    from trainer.model.base import Base
    from trainer.model.device import free_memory_bytes
    from trainer.training.footprint import footprint
    from trainer.training.memory import Work, plan_memory

    device, step = torch.device(job.device), job.step
    values: dict[str, Any] = {"model": {"base": "random", "quantization": job.quantization}}
    values |= {"data": {"train": "rows.jsonl"}, "backend": {"kind": "local"}, "lora": {"r": RANK}}
    config = RunConfig.model_validate(values)
    base = Base("random", "random", None, config_of(job.shape), {})
    longest = max(len(example.input_ids) for example in step.examples)
    work = Work(longest, step.num_tokens, step.num_supervised, [step.examples], Sharing())
    shape = footprint(config, base, torch.bfloat16, device, longest)
    return plan_memory(shape, config.memory, device.type, free_memory_bytes(device), work)


class TrlSteps(TrainerCallback):
    """TRL's real loop, which steps on a question: between two steps it waits for the next question."""

    def __init__(self, answer: "Answers") -> None:
        self.answers = answer

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.answers.wait():
            os._exit(0)
        self.answers.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.answers.stop()


class TrlGradient(TrainerCallback):
    """Keeps the gradient that the optimizer would get."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        save_gradients(model, self.path)


def trl_trainer(model: Any, examples: list[Example], settings: dict[str, Any], callback: TrainerCallback) -> Any:
    """An optimizer step takes all rows: as many micro-batches as TRL makes of them."""
    trainer = _trl_trainer(model, examples, settings)
    count = len(trainer.get_train_dataloader())
    trainer = _trl_trainer(model, examples, settings | {"gradient_accumulation_steps": count})
    trainer.add_callback(callback)
    return trainer


def _trl_trainer(model: Any, examples: list[Example], settings: dict[str, Any]) -> Any:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from trainer.model.tiny import tiny_base

    columns = {"input_ids": [list(e.input_ids) for e in examples], "labels": [list(e.labels) for e in examples]}
    longest = max(len(example.input_ids) for example in examples)
    own = {"output_dir": tempfile.mkdtemp(), "report_to": [], "save_strategy": "no", "disable_tqdm": True}
    arguments = SFTConfig(**own | {"max_length": longest} | settings)  # 8 rows a micro-batch by default
    tokenizer = AutoTokenizer.from_pretrained(tiny_base())
    dataset = Dataset.from_dict(columns)
    return SFTTrainer(model, args=arguments, train_dataset=dataset, processing_class=tokenizer)


# What makes TRL fast on a CPU: weights in bfloat16, nothing computed twice, small micro-batches with little padding.
BEST: dict[str, Any] = {"gradient_checkpointing": False, "per_device_train_batch_size": 2}
TRL_ARMS: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl-packed": BEST | {"packing": True},
    "trl-padded": BEST,
}
ARMS = ("reference", "ours", *TRL_ARMS)


class Answers:
    """Reads questions, and prints what a step took."""

    def __init__(self, make_ready: Callable[[], Any]) -> None:
        self.made = make_ready()
        waited = time.time() - psutil.Process().create_time()  # imports included: the first step waits for them, too
        self.ready = {"ready_cpu_seconds": time.process_time(), "ready_wall_seconds": waited}

    def wait(self) -> str:
        return sys.stdin.readline().strip()

    def start(self) -> None:
        self.wall, self.cpu = time.time(), time.process_time()

    def stop(self) -> None:
        took = {"cpu_seconds": time.process_time() - self.cpu, "wall_seconds": time.time() - self.wall}
        print(json.dumps(took | self.ready | {"peak_memory_bytes": peak_process_bytes()}), flush=True)


def work(job: Job, gate_rows: int) -> None:
    """Answer `gate` with loss and gradient of the first rows, then each `step` with what an optimizer step took."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    if job.arm in TRL_ARMS:
        _work_trl(_model(job), job, gate_rows)
    else:
        _work_plain(_model(job), job, gate_rows)


def _model(job: Job) -> Any:
    """TRL's defaults hold weights that are not quantized in float32, and so does what all arms are held against."""
    wide = job.arm == "reference" or (job.arm == "trl" and job.quantization == "none")
    dtype = torch.float32 if wide else torch.bfloat16
    return adapted_model(job.shape, dtype, torch.device(job.device), job.quantization)


def unsloth_model(job: Job) -> Any:
    """Unsloth loads from a folder only. Written after its documentation: it is not installed where this was."""
    from transformers import AutoTokenizer
    from unsloth import FastLanguageModel

    from trainer.model.tiny import tiny_base

    folder = Path(job.folder) / f"unsloth-{job.model}-{job.layers}"
    if not folder.exists():
        random_base(job.shape, torch.bfloat16, torch.device(job.device)).save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_base()).save_pretrained(folder)
    model, _ = FastLanguageModel.from_pretrained(
        str(folder), max_seq_length=8192, dtype=torch.bfloat16, load_in_4bit=job.quantization == "nf4"
    )
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = FastLanguageModel.get_peft_model(
        model, r=RANK, lora_alpha=2 * RANK, target_modules=names, use_gradient_checkpointing=False
    )
    fill_adapter(model)
    return model


def _work_plain(model: Any, job: Job, gate_rows: int) -> None:
    examples = job.step.examples

    def make_ready() -> Callable[[Sequence[Example]], float]:
        if job.arm == "reference":
            return lambda rows: reference(model, rows, job)
        return ours(model, job)

    answers = Answers(make_ready)
    from our_step import Updates  # after the arm is ready: that time includes only what the arm needs

    updates = Updates(model)
    while question := answers.wait():
        if question == "gate":
            loss = answers.made(examples[:gate_rows])
            save_gradients(model, gradient_file(job))
            print(json.dumps({"loss": loss}), flush=True)
            model.zero_grad()
        else:
            answers.start()
            answers.made(examples)
            updates()
            answers.stop()


def _work_trl(model: Any, job: Job, gate_rows: int) -> None:
    examples, settings = job.step.examples, TRL_ARMS[job.arm] | {"use_cpu": True}
    answers = Answers(lambda: _trl_trainer(model, examples, settings))
    answers.wait()  # the gate: a step that changes nothing
    still = settings | {"max_steps": 1, "learning_rate": 0.0, "max_grad_norm": 0.0, "logging_steps": 1}
    trainer = trl_trainer(model, examples[:gate_rows], still, TrlGradient(gradient_file(job)))
    trainer.train()
    print(json.dumps({"loss": next(row["loss"] for row in trainer.state.log_history if "loss" in row)}), flush=True)
    forever = settings | {"max_steps": 1000, "learning_rate": LEARNING_RATE, "logging_strategy": "no"}
    trl_trainer(model, examples, forever, TrlSteps(answers)).train()


def gradient_file(job: Job) -> Path:
    return Path(job.folder) / f"{job.arm}.safetensors"


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Copy the gradient of each trainable weight to the host: name to float32 tensor."""
    parts = {name: p.grad.float().cpu().contiguous() for name, p in model.named_parameters() if p.grad is not None}
    return {name.replace("module.", ""): gradient for name, gradient in parts.items()}


def save_gradients(model: Any, path: Path) -> None:
    from safetensors.torch import save_file

    save_file(gradients(model), path)


def _num_supervised(examples: Sequence[Example]) -> int:
    return sum(label >= 0 for example in examples for label in example.labels[1:])
