"""What is killed: our trainer, and transformers' own for comparison, on the same tiny model and rows."""

import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tests.queues import make_run, program, starts
from trainer.backends import worker
from trainer.config import RunConfig
from trainer.config.schema import MemoryConfig
from trainer.data.pack.packing import Pack
from trainer.errors import ExitCode
from trainer.model.sharing import UNSHARED
from trainer.runs import Run, create_run, find_or_adopt, lock
from trainer.runs.lifecycle import enqueue
from trainer.runs.queue import Queue
from trainer.training import engine
from trainer.training.engine import Engine
from trainer.training.fit import fit
from trainer.training.prepare import prepare

STEPS, SAVE_STEPS, KEEP = 8, 2, 2


def write_rows(path: Path, first: int, last: int) -> str:
    rows = (
        {"messages": [
            {"role": "user", "content": f"What is number {number}?"},
            {"role": "assistant", "content": f"It comes after {number - 1}."},
        ]}
        for number in range(first, last)
    )  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_pairs(path: Path, first: int, last: int) -> str:
    rows = (
        {
            "input": {"messages": [{"role": "user", "content": f"What is number {number}?"}]},
            "preferred_output": [{"role": "assistant", "content": f"It comes after {number - 1}."}],
            "non_preferred_output": [{"role": "assistant", "content": "Who knows."}],
        }
        for number in range(first, last)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


VARIANTS = ("shared", "unshared", "cut", "pairs")
TOO_MANY = 44  # tokens at a time: some steps have no larger pack, so that memory runs out in the middle of the run


class OurTrainer:
    """`train --config … --auto-resume`, without the command around it.

    `shared` is as it comes; `unshared` computes no token for two rows; `cut` runs out of memory at larger packs, as a
    smaller device would, and cuts its steps finer from then on; `pairs` trains on preferences.
    """

    def __init__(self, root: Path, variant: str = "shared") -> None:
        torch.set_num_threads(1)  # before the first operation: forks inherit no thread pool
        lock.PATIENCE_SECONDS = 0.2
        self.config = RunConfig.model_validate(
            {
                "model": {"base": "builtin:tiny"},
                "data": {
                    "train": write_rows(root / "train.jsonl", 0, 16),
                    "validation": write_rows(root / "validation.jsonl", 16, 20),
                },
                "lora": {"r": 2, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"]},
                "training": {
                    "n_epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "logging_steps": 1, "eval_steps": 2,
                    "save_steps": SAVE_STEPS, "save_total_limit": KEEP,
                },
                "run": {"root": str(root), "name": "undisturbed"},
            }
        )  # fmt: skip
        if variant == "pairs":
            self.config = _on_pairs(self.config, root)
        if variant == "unshared":
            engine.sharing_of = lambda model: (UNSHARED, None)
        if variant == "cut":
            self.config = self.config.model_copy(update={"memory": MemoryConfig(token_budget=60)})
            Engine.sums = _fitting(Engine.sums)
        self.prepared = prepare(self.config, print)

    def start(self, folder: Path) -> None:
        self.go_on(folder)

    def go_on(self, folder: Path) -> None:
        torch.set_num_threads(1)  # makes the fork's own thread pool, before threads that load weights race for it
        section = self.prepared.config.run.model_copy(update={"name": folder.name})
        config = self.prepared.config.model_copy(update={"run": section})
        run = find_or_adopt(config) or create_run(config)
        if run.state == "succeeded":
            return
        outcome = fit(_with(self.prepared, config), run, Console(file=io.StringIO()))
        assert outcome.exit_code is ExitCode.DONE

    def result(self, folder: Path) -> Any:
        run = Run(folder)
        passing = ("tokens_per_second", "peak_memory_bytes")
        measured = [{name: row[name] for name in row if name not in passing} for row in run.metrics()]
        return run.state, run.results(), measured, digest(run.adapter / "adapter_model.safetensors")


def _on_pairs(config: RunConfig, root: Path) -> RunConfig:
    files = {"train": write_pairs(root / "pairs.jsonl", 0, 16), "validation": write_pairs(root / "held.jsonl", 16, 20)}
    training = config.training.model_copy(update={"method": "dpo"})
    return config.model_copy(update={"training": training, "data": config.data.model_copy(update=files)})


def _fitting(sums: Any) -> Any:
    def fitting_sums(self: Engine, pack: Pack) -> Any:
        if torch.is_grad_enabled() and len(pack.input_ids) > TOO_MANY:
            raise torch.OutOfMemoryError
        return sums(self, pack)

    return fitting_sums


def _with(prepared: Any, config: RunConfig) -> Any:
    from dataclasses import replace

    return replace(prepared, config=config)


class StockTrainer:
    """transformers' Trainer with its own checkpoints and `resume_from_checkpoint=True`, as its manual advises."""

    def __init__(self, root: Path) -> None:
        from transformers import AutoTokenizer

        from trainer.model.tiny import tiny_base

        torch.set_num_threads(1)
        self.base = tiny_base()
        tokenizer = AutoTokenizer.from_pretrained(self.base)
        texts = [f"What is number {number}? It comes after {number - 1}." for number in range(STEPS * 2)]
        self.rows = [
            {"input_ids": ids, "labels": ids, "attention_mask": [1] * len(ids)}
            for text in texts
            if (ids := tokenizer(text, padding="max_length", max_length=24)["input_ids"])
        ]

    def start(self, folder: Path) -> None:
        folder.mkdir()
        self.go_on(folder)

    def go_on(self, folder: Path) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, set_seed

        set_seed(0)
        model = AutoModelForCausalLM.from_pretrained(self.base)
        adapted = get_peft_model(model, LoraConfig(r=2, lora_dropout=0.1, target_modules=["q_proj", "v_proj"]))
        arguments = TrainingArguments(
            output_dir=str(folder), num_train_epochs=2, per_device_train_batch_size=4, learning_rate=1e-3,
            logging_steps=1, save_steps=SAVE_STEPS, save_total_limit=KEEP, use_cpu=True, disable_tqdm=True,
            report_to=[], seed=0,
        )  # fmt: skip
        trainer = Trainer(model=adapted, args=arguments, train_dataset=self.rows)
        trainer.train(resume_from_checkpoint=True if any(folder.glob("checkpoint-*")) else None)
        adapted.save_pretrained(folder / "final")
        losses = [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
        (folder / "losses.json").write_text(json.dumps(losses))

    def result(self, folder: Path) -> Any:
        return (folder / "losses.json").read_text(), digest(folder / "final" / "adapter_model.safetensors")


class QueuedRuns:
    """`train --queue` for two runs and the worker that starts them, with a program of a moment as the training."""

    NAMES = ("first", "second")

    def __init__(self, root: Path) -> None:
        sys.executable = program(root, seconds=0.02)
        worker.POLL_SECONDS = 0.01

    def start(self, folder: Path) -> None:
        self.go_on(folder)

    def go_on(self, folder: Path) -> None:
        """Submit what was not, and work: what is killed here is whoever submits, and then the worker."""
        for name in self.NAMES:
            path = folder / name
            run = Run(path) if (path / "config.yaml").is_file() else make_run(folder, name)
            is_known = any(entry.run == name for entry in Queue(folder).entries())
            if not is_known and run.state in ("validating_files", "queued", "paused"):
                enqueue(run)
        worker.work(folder, lambda message: None)

    def result(self, folder: Path) -> Any:
        """The starts, which are one of each, and the end of each run; nothing waits, and nothing is left behind."""
        queue = Queue(folder)
        left = [
            path.name for path in queue.folder.rglob("*") if path.is_file() and path.suffix not in (".lock", ".json")
        ]
        return [start.run for start in starts(folder)], [Run(folder / name).state for name in self.NAMES], left
