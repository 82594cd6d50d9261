"""TRL's SFTTrainer with our steps, loss, evaluation and checkpoints.

One batch of the loader is one optimizer step: the examples of its conversations. `training_step` cuts them into
packs, adds up their gradients, and divides by the supervised tokens of the whole step. TRL tokenises, truncates,
masks and drops nothing: it is given ready examples and told to leave them alone.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from datasets import Dataset
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from transformers import PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback
from trl import SFTTrainer

from trainer.config.schema import RunConfig
from trainer.data.pack.balancing import balanced
from trainer.data.pack.packing import Pack
from trainer.data.render.rendering import Example
from trainer.errors import TrainingError
from trainer.model.adapter import adapter_config, adapter_tensors, keep_float32, tensors_problem, trainable
from trainer.model.device import peak_memory_bytes
from trainer.model.sharding import start_over
from trainer.model.sharing import UNSHARED
from trainer.model.weight_files import read_header
from trainer.runs import Run
from trainer.runs.checkpoint import Checkpoint, rotate
from trainer.runs.lock import Lock
from trainer.runs.run import Request
from trainer.training.arguments import make_optimizer, tracker_callbacks, trl_arguments
from trainer.training.curve import Curve
from trainer.training.dataset import Row, Rows
from trainer.training.engine import Engine
from trainer.training.fingerprint import Fingerprint
from trainer.training.guard import FiniteGuard
from trainer.training.held_out import HeldOut
from trainer.training.meter import Meter
from trainer.training.oom import Room
from trainer.training.order import StepOrder
from trainer.training.plan import MEMORY, Plan
from trainer.training.progress import Display
from trainer.training.ranks import Ranks
from trainer.training.schedule import make_schedule
from trainer.training.writer import (
    CheckpointWriter,
    Snapshot,
    optimizer_tensors,
    restore_optimizer,
    restore_rng,
    rng_state,
)

T = TypeVar("T")

ADAPTER, OPTIMIZER = "adapter_model.safetensors", "optimizer.safetensors"
ASKED_SECONDS = 1.0  # between two looks for a request to stop: on a network mount each takes milliseconds


class StepLoader(DataLoader[Row]):
    """Loads whole optimizer steps; the epoch decides their order."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]  # always our StepOrder


class _Rows(TorchDataset[Row]):
    """Rows by their number, as torch's loader wants them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __getitem__(self, number: int) -> Row:
        return self.rows[number]

    def __len__(self) -> int:
        return len(self.rows)


class Trainer(SFTTrainer):  # type: ignore[misc]  # TRL is not typed
    """Trains one run: what a step computes, and what happens after it."""

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        config: RunConfig,
        plan: Plan,
        train: Rows,
        validation: Rows,
        weights: dict[str, float],
        run: Run,
        lock: Lock,
        fingerprint: Fingerprint,
        ranks: Ranks,
        display: Display,
    ) -> None:
        self.settings, self.plan, self.run, self.display = config, plan, run, display
        self.lock, self.fingerprint, self.ranks = lock, fingerprint, ranks
        self.rows = train
        self.few_held_out = HeldOut(validation, config.training.eval_rows)
        self.held_out = HeldOut(validation, len(validation))
        self.order = StepOrder([row.file for row in train.conversations], weights, plan.batch_size, plan.seed)
        super().__init__(
            model=model,
            args=trl_arguments(config, plan, run, model),
            # TRL asks for a Dataset; the loader below is what is trained on.
            train_dataset=Dataset.from_dict({"input_ids": [[0]], "labels": [[0]]}),
            data_collator=_no_collation,
            processing_class=tokenizer,
            callbacks=tracker_callbacks(config, run),
        )
        self.remove_callback(PrinterCallback)
        keep_float32(model)  # TRL turns the adapters of quantised bases into bfloat16
        self.optimizer = self._torch_optimizer = make_optimizer(config, plan, model)  # accelerate wraps the former
        self.guard = FiniteGuard(self.args.device, config.training.on_non_finite, loss_is_scaled=self.args.fp16)
        self.curve = Curve(config.training.early_stopping_patience, config.training.early_stopping_threshold)
        self.room = Room(plan)
        self.writer = CheckpointWriter(run.checkpoints, self._written)
        self.interrupted = False
        self.request: Request | None = None
        self.stopped_early = False
        self._meter = Meter(self.args.device)
        self._recorded_step = -1
        self._looked_at = 0.0

    def stop_after_step(self) -> None:
        """Finish the step that is running, write a checkpoint, and end."""
        self.interrupted = True
        self._say("stopping after this step; again to stop at once")

    @property
    def finished(self) -> bool:
        """Whether the run reached its end: the last step, or the point where stopping early is due."""
        return self.state.global_step >= self.plan.total_steps or self.stopped_early

    def was_finished_at(self, checkpoint: Checkpoint) -> bool:
        """Whether nothing is left to train after `checkpoint`; then this trainer is where that one was."""
        saved = checkpoint.state()
        self.curve.restore(saved["curve"])
        self.state.global_step = checkpoint.step
        self.stopped_early = saved["stopped_early"] and self.curve.should_stop
        return self.finished

    # What a step computes

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Our own, since the first step of transformers' schedules with a warm-up has the rate 0."""
        kind = self.settings.training.lr_scheduler_type
        self.lr_scheduler = make_schedule(self._torch_optimizer, kind, self.plan.warmup_steps, self.plan.total_steps)
        return self.lr_scheduler

    def get_train_dataloader(self) -> DataLoader[Row]:
        return StepLoader(_Rows(self.rows), batch_sampler=self.order, collate_fn=_no_collation)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], None]:
        return [next(epoch_iterator) for _ in range(num_batches)], None

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def training_step(
        self, model: torch.nn.Module, rows: Sequence[Row], num_items_in_batch: None = None
    ) -> torch.Tensor:
        """Forward and backward of one optimizer step; returns its loss, still on the device."""
        self._meter.start()
        model.train()
        return self._step(model, rows)

    @cached_property
    def engine(self) -> Engine:
        """Packs examples and computes their sums; says once what the model does not allow."""
        engine = Engine(self.model, self.args.device, self.ranks)
        engine.recompute(self.room.recompute_layers)
        for note in engine.notes:
            self._say(note)
        return engine

    def _step(self, model: torch.nn.Module, rows: Sequence[Row]) -> torch.Tensor:
        examples = [example for row in rows for example in row.examples]
        num_supervised = sum(example.num_supervised for example in examples)
        nll, num_correct = self._made_to_fit(
            lambda: self._add_gradients(examples, num_supervised),
            lambda: max(len(example.input_ids) for example in examples),
        )
        if self.ranks.size > 1:
            self.ranks.add_up([*_gradients(model), nll, num_correct])
        self.guard.see_loss(nll)
        self._meter.add(nll, num_correct, num_supervised, sum(len(example.input_ids) for example in examples))
        return nll / num_supervised

    def _made_to_fit(self, compute: Callable[[], T], longest: Callable[[], int]) -> T:
        """What `compute` returns, after cutting finer and calling it again wherever memory ran out.

        `longest` counts the tokens of the longest example.

        Raises: TrainingError, when that one alone does not fit.
        """
        engine = self.engine  # made before the first try, since the processes agree on what it finds
        while True:
            rng = rng_state() if self.settings.lora.lora_dropout else None
            if (result := self.ranks.tried(compute)) is not None:
                return result
            start_over(self.model.get_base_model())
            self.model.zero_grad()
            self._say(self.room.cut_finer(engine, longest(), self.state.global_step + 1), level="warning")
            if rng is not None:
                restore_rng(rng)

    def _add_gradients(self, examples: Sequence[Example], num_supervised: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward and backward of this process's part of a step; returns its summed loss and its correct tokens."""
        packs = self._in_step(self._own_packs(examples))
        nll = torch.zeros((), device=self.args.device)
        num_correct = torch.zeros((), dtype=torch.int64, device=self.args.device)
        for pack in packs:
            sums = self.engine.sums(pack)
            self.accelerator.backward(sums.nll / num_supervised)
            nll += sums.nll.detach()
            num_correct += sums.num_correct
        return nll, num_correct

    def _own_packs(self, examples: Sequence[Example]) -> list[Pack]:
        """What this process computes of the examples that all compute together."""
        parts = balanced(examples, self.ranks.size, shared=self.engine.sharing != UNSHARED)
        return self.engine.packs(parts[self.ranks.rank], self.room.token_budget)

    def _in_step(self, packs: list[Pack]) -> list[Pack]:
        """With a base in parts, all processes compute equally many packs: the others need its part of each layer."""
        if not self.settings.memory.shard_base:
            return packs
        self.ranks.will_come()
        return packs + [self.engine.idle] * (self.ranks.most(len(packs)) - len(packs))

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: torch.Tensor | None = None) -> torch.Tensor:
        norm: torch.Tensor = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.guard.gate(norm, self._torch_optimizer)
        return norm

    # What happens after a step

    def _maybe_log_save_evaluate(
        self,
        tr_loss: torch.Tensor,
        grad_norm: torch.Tensor,
        model: torch.nn.Module,
        *args: Any,
        learning_rate: float,
        **kwargs: Any,
    ) -> None:
        """Record, evaluate, save and stop as the plan says; called after each step and again after each epoch.

        `learning_rate` is the one that the step used: the schedule stands at the next one by now.
        """
        step = self.state.global_step
        if step == self._recorded_step:
            return
        self._recorded_step = step
        if self.lock.lost:
            raise TrainingError(f"step {step}: another process took over the run while this one was suspended")
        tr_loss.zero_()
        last = step == self.plan.total_steps
        epoch_end = step % self.plan.steps_per_epoch == 0
        result: dict[str, float] = {}
        if step % self.plan.logging_steps == 0 or epoch_end:
            result |= self._record_training(step, learning_rate, float(grad_norm))
        new_best = False
        if self.held_out.count and (step % self.plan.eval_steps == 0 or epoch_end):
            valid = self.evaluate_held_out(self.few_held_out)
            result |= {f"valid_{name}": value for name, value in valid.items()}
            if epoch_end:
                full = (
                    valid if self.few_held_out.count == self.held_out.count else self.evaluate_held_out(self.held_out)
                )
                result |= {f"full_valid_{name}": value for name, value in full.items()}
            new_best = self.curve.add(step, self.state.epoch or 0.0, valid["loss"])
            self.stopped_early = self.curve.should_stop and not last
        if result:
            self.run.append_result({"step": step} | result)
            self.log(_as_trackers_name(result))
            self.run.set_status("running", step=step, total_steps=self.plan.total_steps, epoch=self.state.epoch)
        self.display.step(step, result)
        self._look_for_request()
        stop = last or self.stopped_early or self.ranks.any(self.interrupted or self.request is not None)
        permanent = self.settings.training.save_permanent_steps
        due = step % self.plan.save_steps == 0 or (permanent is not None and step % permanent == 0)
        if new_best or epoch_end or stop or due:
            self._save(step)
        self.control.should_training_stop = stop

    def _record_training(self, step: int, learning_rate: float, grad_norm: float) -> dict[str, float]:
        """Read the meter: the mean loss and accuracy since the last reading, and everything else to metrics.jsonl."""
        self._check_guard(step)
        reading = self._meter.read()
        for age, loss, usual in reading.spikes:
            message = f"step {step - age}: the loss is {loss:.3g}, the median of the steps before it {usual:.3g}"
            self.run.event(message, level="warning", kind="loss_spike", step=step - age)
        rest = reading.rest | {
            "epoch": round(self.state.epoch or 0.0, 4),
            "learning_rate": learning_rate,
            "grad_norm": grad_norm,
            "peak_memory_bytes": peak_memory_bytes(self.args.device),
        }
        self.run.append_metrics({"step": step} | {key: _finite(value) for key, value in rest.items()})
        shown = {name: rest[name] for name in ("tokens_per_second", "learning_rate", "grad_norm")}
        return reading.result | {name: value for name, value in shown.items() if _finite(value) is not None}

    def _check_guard(self, step: int) -> None:
        """Say which updates were left out. Raises: TrainingError, where that ends the run."""
        if skipped := self.guard.check(step):
            self._say(f"step {step}: {skipped} updates left out, the loss or gradient was not finite", level="warning")

    def _look_for_request(self) -> None:
        """See whether `trainer pause` or `trainer cancel` was called."""
        if (now := time.monotonic()) - self._looked_at >= ASKED_SECONDS:
            self._looked_at, self.request = now, self.run.asked()

    @torch.no_grad()
    def evaluate_held_out(self, rows: HeldOut) -> dict[str, float]:
        """Mean loss and token accuracy over the supervised tokens of `rows`."""
        self._meter.pause()
        self.model.eval()
        nll, num_correct = self._made_to_fit(lambda: self._read(rows), rows.longest)
        self.model.train()
        self.ranks.add_up([nll, num_correct])
        if not torch.isfinite(nll):
            raise TrainingError(
                f"step {self.state.global_step}: the validation loss is not finite, expected finite numbers; "
                "the newest checkpoint before it is kept"
            )
        total = rows.num_supervised
        return {"loss": float(nll) / total, "mean_token_accuracy": int(num_correct) / total}

    def _read(self, rows: HeldOut) -> tuple[torch.Tensor, torch.Tensor]:
        """The summed loss of this process's part of the rows, and its correct tokens."""
        packs = self._in_step(rows.packs(self.room.token_budget, self._own_packs))
        nll = torch.zeros((), dtype=torch.float64, device=self.args.device)
        num_correct = torch.zeros((), dtype=torch.int64, device=self.args.device)
        for pack in packs:
            sums = self.engine.sums(pack)
            nll += sums.nll
            num_correct += sums.num_correct
        return nll, num_correct

    def _say(self, message: str, level: Any = "info") -> None:
        self.run.event(message, level=level)
        self.display.say(message)

    # Checkpoints

    def _names(self) -> dict[int, str]:
        return {id(parameter): name for name, parameter in trainable(self.model).items()}

    def _save(self, step: int) -> None:
        """Hand everything that is needed to go on from this step to the writer."""
        self._check_guard(step)
        self.state.log_history.clear()  # results.csv and metrics.jsonl hold it
        scaler = self.accelerator.scaler
        state = {
            "step": step,
            "fingerprint": self.fingerprint,
            "plan": dataclasses.asdict(self.plan) | self.room.state(),
            "schedule": self.lr_scheduler.last_epoch,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "rng": self.ranks.gather(rng_state()),
            "curve": self.curve.state(),
            "stopped_early": self.stopped_early,
            "meter": self._meter.state(),
            "guard": self.guard.state(),
        }
        if not self.ranks.is_first:
            return
        optimizer = optimizer_tensors(self._torch_optimizer, self._names())
        texts = {
            "adapter_config.json": adapter_config(self.model),
            "trainer_state.json": json.dumps(dataclasses.asdict(self.state)).encode(),
        }
        logs = {path: path.stat().st_size for path in self.run.measured if path.exists()}
        self.writer.submit(
            Snapshot(step, {ADAPTER: adapter_tensors(self.model), OPTIMIZER: optimizer}, texts, logs, state)
        )

    def _written(self, snapshot: Snapshot) -> None:
        """Called by the writer's thread when a checkpoint is on disk.

        What it calls the best stays: training has gone on, and a better one may not be written yet.
        """
        settings, step, best = self.settings.training, snapshot.step, snapshot.state["curve"]["best_step"]
        self.run.event(f"checkpoint at step {step}", kind="checkpoint", step=step)
        protected = set() if best is None else {best}
        if settings.save_permanent_steps:
            protected |= set(range(0, step, settings.save_permanent_steps))
        rotate(self.run.checkpoints, step, settings.save_total_limit, protected)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        raise AssertionError("checkpoints are written by _save")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        file = Path(resume_from_checkpoint) / ADAPTER
        if problem := tensors_problem(self.model, read_header(file)):
            raise TrainingError(
                f"checkpoint {resume_from_checkpoint!r}: {problem}; delete it to go on from an earlier one"
            )
        set_peft_model_state_dict(self.model, load_file(file))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        saved = Checkpoint(Path(checkpoint)).state()
        restore_optimizer(self._torch_optimizer, self._names(), Path(checkpoint) / OPTIMIZER)
        self._restore_schedule(saved["schedule"])
        self.curve.restore(saved["curve"])
        self._meter.restore(saved["meter"])
        self.guard.restore(saved["guard"])
        before = saved["fingerprint"]
        if all(self.fingerprint[name] == before[name] for name in (f"memory.{part}" for part in MEMORY)):
            self.room.restore(saved["plan"])
        if saved["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved["scaler"])

    def _restore_schedule(self, last_epoch: int) -> None:
        """Go on after `last_epoch` steps of the schedule, with the rate and the shape that the config has now."""
        schedule = self.lr_scheduler
        rates = [rate * shape(last_epoch) for rate, shape in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
        position = {"last_epoch": last_epoch, "_step_count": last_epoch + 1, "_last_lr": rates}
        schedule.load_state_dict(position | {"lr_lambdas": [None] * len(rates)})
        for group, rate in zip(self._torch_optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _load_scaler(self, checkpoint: str | None) -> None:
        pass  # restored with the optimizer

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            states = Checkpoint(Path(checkpoint)).state()["rng"]
            restore_rng(states[min(self.ranks.rank, len(states) - 1)])


def _gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    """The adapter's gradients, of zeros where a process had nothing to compute."""
    parameters = list(trainable(model).values())
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _as_trackers_name(result: Mapping[str, float]) -> dict[str, float]:
    """The measurements under the names that transformers' trackers sort into train/ and eval/."""
    renamed = (
        (name.replace("full_valid_", "eval_full_").replace("valid_", "eval_"), value) for name, value in result.items()
    )
    return {name.removeprefix("train_"): value for name, value in renamed}


def _no_collation(rows: Any) -> Any:
    return rows


def _finite(value: float) -> float | None:
    """JSON has no NaN: an infinite gradient norm of a skipped fp16 step is left out."""
    return value if abs(value) != float("inf") and value == value else None
