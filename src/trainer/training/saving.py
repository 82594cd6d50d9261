"""Checkpoints of a run: all that resuming bit-identically takes, saved at a step and restored from a folder."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import TrainerState

from trainer.config.schema import RunConfig
from trainer.errors import TrainingError
from trainer.model.adapter import adapter_config, adapter_tensors, tensors_problem, trainable
from trainer.model.weight_files import read_header
from trainer.runs import Run
from trainer.runs.checkpoint import Checkpoint, rotate
from trainer.training.curve import Curve
from trainer.training.executor import MemoryBudget
from trainer.training.fingerprint import Fingerprint
from trainer.training.guard import FiniteGuard
from trainer.training.meter import Meter
from trainer.training.plan import MEMORY, TrainingPlan
from trainer.training.ranks import Ranks
from trainer.training.writer import (
    CheckpointWriter,
    Snapshot,
    optimizer_tensors,
    restore_optimizer,
    restore_rng,
    rng_state,
)

ADAPTER, OPTIMIZER = "adapter_model.safetensors", "optimizer.safetensors"


@dataclasses.dataclass
class Saver:
    """Saves and restores the parts of one training: the first rank writes, in a thread of its own."""

    run: Run
    config: RunConfig
    plan: TrainingPlan
    fingerprint: Fingerprint
    ranks: Ranks
    model: PeftModel
    optimizer: torch.optim.Optimizer
    budget: MemoryBudget
    curve: Curve
    meter: Meter
    guard: FiniteGuard

    def __post_init__(self) -> None:
        self.writer = CheckpointWriter(self.run.checkpoints, self._written)

    def save(self, state: TrainerState, schedule: Any, scaler: Any, stopped_early: bool) -> None:
        """Hand everything that resuming from this step takes to the writer. All ranks call it."""
        step = state.global_step
        content = {
            "step": step,
            "fingerprint": self.fingerprint,
            "plan": dataclasses.asdict(self.plan) | self.budget.state(),
            "schedule": schedule.last_epoch,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "rng": self.ranks.gather(rng_state()),
            "curve": self.curve.state(),
            "stopped_early": stopped_early,
            "meter": self.meter.state(),
            "guard": self.guard.state(),
        }
        if not self.ranks.is_first:
            return
        tensors = {
            ADAPTER: adapter_tensors(self.model),
            OPTIMIZER: optimizer_tensors(self.optimizer, self._names()),
        }
        texts = {
            "adapter_config.json": adapter_config(self.model),
            "trainer_state.json": json.dumps(dataclasses.asdict(state)).encode(),
        }
        logs = {path: path.stat().st_size for path in self.run.measured if path.exists()}
        self.writer.submit(Snapshot(step, tensors, texts, logs, content))

    def _written(self, snapshot: Snapshot) -> None:
        """Called by the writer's thread when a checkpoint is on disk.

        What it calls the best stays: training has continued, and a better one may not be written yet.
        """
        settings, step, best = self.config.training, snapshot.step, snapshot.state["curve"]["best_step"]
        self.run.event(f"checkpoint at step {step}", kind="checkpoint", step=step)
        protected = set() if best is None else {best}
        if settings.save_permanent_steps:
            protected |= set(range(0, step, settings.save_permanent_steps))
        rotate(self.run.checkpoints, step, settings.save_total_limit, protected)

    def restore_adapter(self, folder: Path) -> None:
        """Raises: TrainingError, when the tensors are not those of this adapter."""
        if problem := tensors_problem(self.model, read_header(folder / ADAPTER)):
            raise TrainingError(f"checkpoint {str(folder)!r}: {problem}; delete it to resume from an earlier one")
        set_peft_model_state_dict(self.model, load_file(folder / ADAPTER))

    def restore_progress(self, folder: Path, schedule: Any, scaler: Any) -> None:
        """Optimizer, schedule, measurements, memory budget and loss scale as they were at the checkpoint.

        Raises: TrainingError, when the optimizer's tensors are not those of this adapter.
        """
        saved = Checkpoint(folder).state()
        restore_optimizer(self.optimizer, self._names(), folder / OPTIMIZER)
        self._restore_schedule(schedule, saved["schedule"])
        self.curve.restore(saved["curve"])
        self.meter.restore(saved["meter"])
        self.guard.restore(saved["guard"])
        before = saved["fingerprint"]
        if all(self.fingerprint[name] == before[name] for name in (f"memory.{part}" for part in MEMORY)):
            self.budget.restore(saved["plan"])
        if saved["scaler"] is not None and scaler is not None:
            scaler.load_state_dict(saved["scaler"])

    def restore_rng(self, folder: Path) -> None:
        states = Checkpoint(folder).state()["rng"]
        restore_rng(states[min(self.ranks.rank, len(states) - 1)])

    def _restore_schedule(self, schedule: Any, last_epoch: int) -> None:
        """Resume after `last_epoch` steps of the schedule, with the rate and the shape that the config has now."""
        rates = [rate * shape(last_epoch) for rate, shape in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
        position = {"last_epoch": last_epoch, "_step_count": last_epoch + 1, "_last_lr": rates}
        schedule.load_state_dict(position | {"lr_lambdas": [None] * len(rates)})
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _names(self) -> dict[int, str]:
        return {id(parameter): name for name, parameter in trainable(self.model).items()}
