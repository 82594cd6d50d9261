"""One run from prepared data to a stored adapter: read this file top to bottom.

    load the base, put the adapter on, train, store the best adapter.

What a step computes, and what happens after it, is in `sft.py`.
"""

import contextlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from trainer.data.overlength import in_words
from trainer.errors import ExitCode, TrainerError, TrainingError
from trainer.model.adapter import add_adapter, load_adapter, trainable
from trainer.model.base import load_model
from trainer.runs import Run, files
from trainer.runs.run import now
from trainer.training.checkpoints import Checkpoint, folder_of, newest_complete
from trainer.training.interrupt import EXIT_CODES, on_interrupt
from trainer.training.manifest import build_manifest, refuse_changes
from trainer.training.prepare import Prepared
from trainer.training.progress import make_display

if TYPE_CHECKING:
    from peft import PeftModel

    from trainer.training.sft import Trainer


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, in a code for the shell and a sentence for people."""

    exit_code: ExitCode
    summary: str


def fit(prepared: Prepared, run: Run, console: Console) -> Outcome:
    """Train `run`, going on from its newest complete checkpoint if it has one.

    Raises: TrainingError, when the run fails; its complete checkpoints are kept.
    """
    checkpoint = _where_to_start(prepared, run, console)
    run.set_status("running", total_steps=prepared.plan.total_steps, error=None, finished_at=None)
    try:
        outcome = _train(prepared, run, checkpoint, console)
    except KeyboardInterrupt:
        run.set_status("paused")
        run.event("interrupted")
        return Outcome(ExitCode.INTERRUPTED, _interrupted(run))
    except Exception as error:
        failure = _as_told(error, run)
        with contextlib.suppress(OSError):  # on a full disk the status cannot be written either
            run.set_status("failed", error=str(failure))
            run.event(str(failure), level="error")
        raise failure from error
    return outcome


def _where_to_start(prepared: Prepared, run: Run, console: Console) -> Checkpoint | None:
    """The checkpoint to go on from. A fresh run writes its manifest; a resumed one must still match it."""
    manifest = run.manifest()
    if not manifest:
        run.write_manifest(build_manifest(prepared))
        if touched := prepared.data.touched:
            told = f"{in_words(touched, prepared.plan.max_length)}; manifest.json lists them"
            counts = Counter[str](note.outcome for note in touched)
            run.event(told, level="warning", kind="overlength", **counts)
        return None
    refuse_changes(manifest, prepared)
    checkpoint, passed_over = newest_complete(run.checkpoints)
    for reason in passed_over:
        run.event(reason, level="warning")
        console.print(reason, highlight=False, markup=False)
    step = checkpoint.step if checkpoint else 0
    run.forget_after(step)
    run.event(f"resumed from step {step}")
    console.print(f"resuming {run.name} from step {step}", highlight=False, markup=False)
    return checkpoint


def _train(prepared: Prepared, run: Run, checkpoint: Checkpoint | None, console: Console) -> Outcome:
    from transformers import set_seed

    from trainer.training.sft import Trainer

    config, plan, data = prepared.config, prepared.plan, prepared.data
    set_seed(plan.seed)
    model = _load(prepared)
    num_trainable = sum(parameter.numel() for parameter in trainable(model).values())
    run.event(f"training {num_trainable:,} adapter weights for {plan.total_steps} steps")
    with make_display(console, plan.total_steps) as display:
        trainer = Trainer(
            model, prepared.tokenizer, config, plan, data.train, data.validation, data.weights, run, display
        )
        with on_interrupt(trainer.stop_after_step):
            if checkpoint is None or checkpoint.step < plan.total_steps:
                trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
            else:
                trainer.curve.restore(checkpoint.state()["curve"])
    if trainer.stop_signal is not None and not trainer.finished:
        run.set_status("paused")
        run.event("interrupted at a step boundary; a checkpoint was written")
        return Outcome(EXIT_CODES[trainer.stop_signal], _interrupted(run))
    return _store_result(prepared, run, trainer)


def _load(prepared: Prepared) -> "PeftModel":
    """The base with the adapter that is trained: a new one, or the parent run's."""
    settings = prepared.config.model
    model = load_model(prepared.base, settings, prepared.device, prepared.dtype)
    if prepared.parent is not None:
        return load_adapter(model, prepared.parent.adapter, trainable=True)
    return add_adapter(model, prepared.config.lora)


def _store_result(prepared: Prepared, run: Run, trainer: "Trainer") -> Outcome:
    """Copy the chosen checkpoint's adapter, and the tokenizer it was trained with, to `adapter/`."""
    last = trainer.state.global_step or prepared.plan.total_steps
    keep_best = prepared.config.training.adapter_from == "best" and trainer.curve.best_step is not None
    step = trainer.curve.best_step if keep_best and trainer.curve.best_step is not None else last
    chosen = Checkpoint(folder_of(run.checkpoints, step))
    if problem := chosen.problem():
        raise TrainingError(f"checkpoint {chosen.path}: {problem}; resume the run to write it again")
    _copy_adapter(chosen.path, run.adapter)
    prepared.tokenizer.save_pretrained(run.adapter)
    note = trainer.curve.overfitting()
    ending = "stopped early" if trainer.stopped_early else "finished"
    summary = f"{ending} at step {last}; the adapter is from step {step}"
    if note:
        summary = f"{note}; the adapter is from step {step}"
    run.event(summary, kind="result", step=step)
    run.set_status("succeeded", step=last, adapter_step=step, summary=summary, finished_at=now())
    return Outcome(ExitCode.DONE, summary)


def _copy_adapter(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        files.write_whole(target / name, (source / name).read_bytes())


def _interrupted(run: Run) -> str:
    return f"interrupted; go on with: train --resume {run.path}"


def _as_told(error: Exception, run: Run) -> TrainerError:
    """A full disk or a vanished file is told in words; anything else unexpected keeps its own."""
    import torch

    if isinstance(error, TrainerError):
        return error
    if isinstance(error, OSError):
        return TrainingError(
            f"{error.filename or run.path}: {error.strerror or error}; put it right and go on with: "
            f"train --resume {run.path}"
        )
    if isinstance(error, torch.OutOfMemoryError):
        return TrainingError("out of memory; lower memory.token_budget, or set model.quantization to nf4")
    return TrainingError(f"unexpected {type(error).__name__}: {error}; --debug shows where")
