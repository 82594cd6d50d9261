"""The training loop. One batch of the loader is one optimizer step: the examples of its conversations.

transformers' loop calls, for each step and in this order:

    training_step               forward and backward of the step's packs, on all ranks
    (clipping to max_grad_norm)
    _get_grad_norm              the guard turns an update that is not finite into none
    (optimizer, schedule)
    _maybe_log_save_evaluate    log, evaluate, save, and stop where that is due

`executor.py` computes, `validation.py` evaluates, `saving.py` saves and restores.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from transformers import PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback
from trl import SFTTrainer

from trainer.config.schema import RunConfig
from trainer.errors import TrainingError
from trainer.model.adapter import keep_float32
from trainer.model.device import peak_memory_bytes
from trainer.runs import Run
from trainer.runs.checkpoint import Checkpoint
from trainer.runs.lock import Lock
from trainer.runs.results import COLUMNS
from trainer.runs.run import Request
from trainer.training.arguments import make_optimizer, make_schedule, trl_arguments
from trainer.training.curve import Curve
from trainer.training.dataset import Rows
from trainer.training.executor import Executor
from trainer.training.fingerprint import Fingerprint
from trainer.training.guard import FiniteGuard
from trainer.training.meter import Meter
from trainer.training.order import StepOrder
from trainer.training.plan import TrainingPlan
from trainer.training.progress import Display
from trainer.training.ranks import Ranks
from trainer.training.saving import Saver
from trainer.training.trackers import tracker_callbacks
from trainer.training.validation import Validation

LOGGED = ("tokens_per_second", "learning_rate", "grad_norm")  # beside losses, for trackers
ASKED_SECONDS = 1.0  # between two looks for a request to stop: on a network mount each takes milliseconds


class Trainer(SFTTrainer):  # type: ignore[misc]  # TRL is not typed
    """Trains one run: what a step computes, and what happens after it."""

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        config: RunConfig,
        plan: TrainingPlan,
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
        self.lock, self.ranks, self.rows = lock, ranks, train
        self.order = StepOrder([row.file for row in train.conversations], weights, plan.batch_size, plan.seed)
        super().__init__(
            model=model,
            args=trl_arguments(config, plan, run, model),
            # TRL asks for a Dataset; the loader below is what is trained on.
            train_dataset=Dataset.from_dict({"input_ids": [[0]], "labels": [[0]]}),
            data_collator=_no_collation,
            processing_class=tokenizer,
            callbacks=tracker_callbacks(config, run, partial(self._say, level="warning")),
        )
        self.remove_callback(PrinterCallback)
        keep_float32(model)  # TRL turns the adapters of quantised bases into bfloat16
        self.optimizer = self._torch_optimizer = make_optimizer(config, plan, model)  # accelerate wraps the former
        device = self.args.device
        self.guard = FiniteGuard(device, config.training.on_non_finite, loss_is_scaled=self.args.fp16)
        self.curve = Curve(config.training.early_stopping_patience, config.training.early_stopping_threshold)
        self._make_parts(model, device, validation)
        self.saver = Saver(
            run, config, plan, fingerprint, ranks, model, self._torch_optimizer, self.executor.budget,
            self.curve, self.meter, self.guard,
        )  # fmt: skip
        self.interrupted = False
        self.request: Request | None = None
        self.stopped_early = False
        self._recorded_step = -1
        self._looked_at = 0.0

    def _make_parts(self, model: PeftModel, device: torch.device, validation: Rows) -> None:
        """Make what depends on the method of training: computing, measuring, evaluating."""
        self.executor = Executor(
            model, device, self.settings, self.plan, self.ranks, self.accelerator.backward, self._say
        )
        self.meter = Meter(device)
        self.validation = Validation(self.executor, validation, self.settings.training.eval_rows)

    def get_ready(self, fingerprint: Fingerprint) -> bool:
        """Compute what training needs of the model as it starts; False where the run was asked to stop meanwhile."""
        return True

    # A step

    def training_step(
        self, model: torch.nn.Module, rows: Sequence[Any], num_items_in_batch: None = None
    ) -> torch.Tensor:
        """Forward and backward of one optimizer step; returns its loss, still on the device."""
        self.meter.start()
        model.train()
        return self._step(rows)

    def _step(self, rows: Sequence[Any]) -> torch.Tensor:
        examples = [example for row in rows for example in row.examples]
        num_supervised: int = sum(example.num_supervised for example in examples)
        nll, num_correct = self.executor.add_gradients(examples, num_supervised, self.state.global_step + 1)
        self.guard.see_loss(nll)
        self.meter.add(nll, num_correct, num_supervised, sum(len(example.input_ids) for example in examples))
        return nll / num_supervised

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: torch.Tensor | None = None) -> torch.Tensor:
        norm: torch.Tensor = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.guard.gate(norm, self._torch_optimizer)
        return norm

    def _maybe_log_save_evaluate(
        self,
        tr_loss: torch.Tensor,
        grad_norm: torch.Tensor,
        *args: Any,
        learning_rate: float,
        **kwargs: Any,
    ) -> None:
        """Log, evaluate, save and stop as the plan says; called after each step and again after each epoch.

        `learning_rate` is the one that the step used: the schedule stands at the next one by now.
        """
        step, plan = self.state.global_step, self.plan
        if step == self._recorded_step:
            return
        self._recorded_step = step
        if self.lock.lost:
            raise TrainingError(f"step {step}: another process took over the run while this one was suspended")
        tr_loss.zero_()
        last, epoch_end = step == plan.total_steps, step % plan.steps_per_epoch == 0
        result: dict[str, float] = {}
        if step % plan.logging_steps == 0 or epoch_end:
            result |= self._read_meter(step, learning_rate, float(grad_norm))
        new_best = False
        if self.validation and (step % plan.eval_steps == 0 or epoch_end):
            self.meter.pause()
            measured = self.validation.measure(step, epoch_end)
            result |= measured
            if more := {name: value for name, value in measured.items() if name not in COLUMNS}:
                self.run.append_metrics({"step": step} | more)
            new_best = self.curve.add(step, self.state.epoch or 0.0, result["valid_loss"])
            self.stopped_early = self.curve.should_stop and not last
        if result:
            self.run.append_result({"step": step} | result)
            self.log(_as_trackers_name(result))
            self.run.set_status("running", step=step, total_steps=plan.total_steps, epoch=self.state.epoch)
        self.display.step(step, result)
        self._look_for_request()
        stop = last or self.stopped_early or self.ranks.any(self.interrupted or self.request is not None)
        permanent = self.settings.training.save_permanent_steps
        due = step % plan.save_steps == 0 or (permanent is not None and step % permanent == 0)
        if new_best or epoch_end or stop or due:
            self._check_guard(step)
            self.state.log_history.clear()  # results.csv and metrics.jsonl hold it
            self.saver.save(self.state, self.lr_scheduler, self.accelerator.scaler, self.stopped_early)
        self.control.should_training_stop = stop

    def _read_meter(self, step: int, learning_rate: float, grad_norm: float) -> dict[str, float]:
        """Mean loss and accuracy since the last reading; everything else goes to metrics.jsonl."""
        self._check_guard(step)
        reading = self.meter.read()
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
        shown = {name: rest[name] for name in rest if name.startswith("train_") or name in LOGGED}
        return reading.result | {name: value for name, value in shown.items() if _finite(value) is not None}

    def _check_guard(self, step: int) -> None:
        """Say which updates were left out. Raises: TrainingError, where that ends the run."""
        if skipped := self.guard.check(step):
            self._say(f"step {step}: {skipped} updates left out, the loss or gradient was not finite", level="warning")

    # The end

    def stop_after_step(self) -> None:
        """Finish the step that is running, write a checkpoint, and end."""
        self.interrupted = True
        self._say("stopping after this step; again to stop at once")

    def _look_for_request(self) -> None:
        """See whether `trainer pause` or `trainer cancel` was called."""
        if (now := time.monotonic()) - self._looked_at >= ASKED_SECONDS:
            self._looked_at, self.request = now, self.run.asked()

    @property
    def finished(self) -> bool:
        """True where the run reached its end: the last step, or the point where stopping early is due."""
        return self.state.global_step >= self.plan.total_steps or self.stopped_early

    def was_finished_at(self, checkpoint: Checkpoint) -> bool:
        """True where nothing is left to train after `checkpoint`; then this trainer is where that one was."""
        saved = checkpoint.state()
        self.curve.restore(saved["curve"])
        self.state.global_step = checkpoint.step
        self.stopped_early = saved["stopped_early"] and self.curve.should_stop
        return self.finished

    def _say(self, message: str, level: Any = "info") -> None:
        self.run.event(message, level=level)
        self.display.say(message)

    # What transformers asks for before the first step

    def get_train_dataloader(self) -> DataLoader[Any]:
        return StepLoader(_Rows(self._trained()), batch_sampler=self.order, collate_fn=_no_collation)

    def _trained(self) -> Sequence[Any]:
        """The training rows as a step takes them."""
        return self.rows

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], None]:
        return [next(epoch_iterator) for _ in range(num_batches)], None

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Our own, since the first step of transformers' schedules with a warm-up has the rate 0."""
        kind = self.settings.training.lr_scheduler_type
        self.lr_scheduler = make_schedule(self._torch_optimizer, kind, self.plan.warmup_steps, self.plan.total_steps)
        return self.lr_scheduler

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # transformers counts them after every step, from a batch of tensors; no setting turns it off

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        self.saver.restore_adapter(Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.saver.restore_progress(Path(checkpoint), self.lr_scheduler, self.accelerator.scaler)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.saver.restore_rng(Path(checkpoint))


class StepLoader(DataLoader[Any]):
    """Loads whole optimizer steps; the epoch decides their order."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]  # always our StepOrder


class _Rows(TorchDataset[Any]):
    """Rows by their number, as torch's loader wants them."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self.rows = rows

    def __getitem__(self, number: int) -> Any:
        return self.rows[number]

    def __len__(self) -> int:
        return len(self.rows)


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
