"""One run from prepared data to a stored adapter: read this file top to bottom.

    load the base, put the adapter on, train, store the best adapter.

What a step computes, and what happens after it, is in `loop.py`.
"""

import contextlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from trainer.errors import ExitCode, TrainerError, TrainingError, file_words
from trainer.kinds import learns_from_pairs
from trainer.model.adapter import (
    ADAPTER,
    ADAPTER_CONFIG,
    add_adapter,
    load_adapter,
    seal_adapter,
    trainable,
    unchanged,
)
from trainer.model.loading import load_model
from trainer.model.rms_norm import use_lean_norms
from trainer.model.sharding import is_sharded, shard_base
from trainer.model.unlearned import unlearned
from trainer.runs import Run, files
from trainer.runs.checkpoint import MANIFEST, Checkpoint, folder_of
from trainer.runs.lock import Lock, locked
from trainer.runs.run import Outcome, now
from trainer.training.garbage import all_stays
from trainer.training.interrupt import Interruption
from trainer.training.prepare import Prepared
from trainer.training.progress import make_display
from trainer.training.ranks import is_lost
from trainer.training.start import Start, find_start

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from trainer.training.loop import Trainer

LOOKED_AT = 100  # training rows in which control tokens are looked for


def fit(prepared: Prepared, run: Run, console: Console, allowed: Collection[str] = ()) -> Outcome:
    """Train `run`, from its newest complete checkpoint if it has one.

    `allowed` names the settings that may differ from those the run started with.

    Raises: ConfigError, when another process executes the run or something else has changed; TrainingError, when the
    run fails: its complete checkpoints are kept.
    """

    def say(message: str) -> None:
        console.print(message, highlight=False, markup=False, soft_wrap=True)

    ranks, lock = prepared.ranks, Lock()
    with contextlib.ExitStack() as stack:
        interruption = stack.enter_context(Interruption())

        def begin() -> Start:
            nonlocal lock
            lock = stack.enter_context(locked(run.path, say))
            start = find_start(prepared, run, allowed, say)
            cleared = dict.fromkeys(("error", "finished_at", "stopped_by"))
            run.set_status("running", total_steps=prepared.plan.total_steps, **cleared)
            return start

        start = ranks.first(begin)
        run = stack.enter_context(ranks.own(run))
        outcome = _ending(prepared, run, lock, start, interruption, console)
        return ranks.first(lambda: outcome)


def _ending(
    prepared: Prepared, run: Run, lock: Lock, start: Start, interruption: Interruption, console: Console
) -> Outcome:
    """Train, and write down how it ended. Raises: TrainingError."""
    try:
        return _train(prepared, run, lock, start, interruption, console)
    except KeyboardInterrupt:
        run.set_status("paused")
        run.event("interrupted")
        return Outcome(interruption.exit_code, _interrupted(run))
    except Exception as error:
        failure = _in_words(error, run)
        with contextlib.suppress(OSError):  # on a full disk the status cannot be written either
            run.set_status("failed", error=str(failure))
            run.event(str(failure), level="error")
        raise failure from error


def _train(
    prepared: Prepared, run: Run, lock: Lock, start: Start, interruption: Interruption, console: Console
) -> Outcome:
    with all_stays():
        from transformers import set_seed

        from trainer.training.loop import Trainer
        from trainer.training.pair_loop import PairTrainer

    config, plan, data = prepared.config, prepared.plan, prepared.data
    set_seed(plan.seed)  # the same first weights in all processes
    if config.training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with a fixed workspace
    torch.use_deterministic_algorithms(config.training.deterministic)
    model = _load(prepared)
    if prepared.ranks.is_first and (warning := _unlearned_tokens(prepared, model)):
        run.event(warning, level="warning", kind="unlearned_tokens")
        console.print(warning, highlight=False, markup=False, soft_wrap=True)
    num_trainable = sum(parameter.numel() for parameter in trainable(model).values())
    run.event(f"training {num_trainable:,} adapter weights for {plan.total_steps} steps")
    with make_display(console, plan.total_steps) as display:
        trainer = (PairTrainer if learns_from_pairs(config.training.method) else Trainer)(
            model, prepared.tokenizer, config, plan, data.train, data.validation, data.weights, run, lock,
            start.fingerprint, prepared.ranks, display,
        )  # fmt: skip
        set_seed(plan.seed + prepared.ranks.rank)  # and other dropout in each
        with interruption.calls(trainer.stop_after_step), trainer.saver.writer:
            done = start.checkpoint is not None and trainer.was_finished_at(start.checkpoint)
            if not done and trainer.get_ready(start.fingerprint):
                trainer.train(resume_from_checkpoint=str(start.checkpoint.path) if start.checkpoint else None)
    if not trainer.finished:
        return _stopped(run, trainer, interruption)
    if not prepared.ranks.is_first:
        return Outcome(ExitCode.DONE, "finished")
    return _store_result(prepared, run, trainer)


def _stopped(run: Run, trainer: "Trainer", interruption: Interruption) -> Outcome:
    """End a run that was asked to stop: by a signal, or by `trainer pause` or `trainer cancel`."""
    run.answer()
    step = trainer.state.global_step
    where = "at a step boundary; a checkpoint was written" if step else "before the first step"
    if trainer.request == "cancel":
        run.set_status("cancelled", step=step, finished_at=now())
        run.event(f"cancelled {where}")
        return Outcome(ExitCode.RUN_FAILED, f"cancelled; its last checkpoint is kept in {run.checkpoints}")
    run.set_status("paused", step=step, stopped_by=trainer.request)  # else by a signal
    run.event(f"stopped {where}")
    return Outcome(interruption.exit_code, _interrupted(run))


def _load(prepared: Prepared) -> "PeftModel":
    """The base with the adapter that is trained, on the device; a sharded base is never whole on one."""
    settings, shard = prepared.config.model, prepared.config.memory.shard_base
    place = torch.device("cpu") if shard else prepared.device
    model = _adapted(prepared, load_model(prepared.base, settings, place, prepared.dtype))
    if not shard:
        return model
    use_lean_norms(model.get_base_model())  # it tries them, which takes whole weights
    return shard_base(model, prepared.device, prepared.ranks.will_come)


def _unlearned_tokens(prepared: Prepared, model: "PeftModel") -> str | None:
    """A warning where the base has never learned control tokens that the training rows hold."""
    tokenizer = prepared.tokenizer
    control = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    rows = [prepared.data.train[number] for number in range(min(len(prepared.data.train), LOOKED_AT))]
    used = control & {token for row in rows for example in row.examples for token in example.input_ids}
    base = model.get_base_model()
    if is_sharded(base) or not (found := unlearned(base, used, control)):
        return None
    reasons = "; ".join(f"{tokenizer.convert_ids_to_tokens(token)!r}: {reason}" for token, reason in found.items())
    return (
        f"the base has not learned {len(found)} of the {len(used)} control tokens of the chat template ({reasons}): "
        "answers may never end, as an adapter does not train these rows; choose the instruct variant, or a "
        "model.chat_template whose tokens it knows"
    )


def _adapted(prepared: Prepared, model: "PreTrainedModel") -> "PeftModel":
    """With a new adapter, or the parent run's."""
    if prepared.parent is not None:
        with Checkpoint(prepared.parent.adapter).reading():  # its own run may resume meanwhile
            return load_adapter(model, prepared.parent.adapter, trainable=True)
    return add_adapter(model, prepared.config.lora)


def _store_result(prepared: Prepared, run: Run, trainer: "Trainer") -> Outcome:
    """Copy the chosen checkpoint's adapter, and the tokenizer it was trained with, to `adapter/`."""
    last = trainer.state.global_step
    keep_best = prepared.config.training.adapter_from == "best" and trainer.curve.best_step is not None
    step = trainer.curve.best_step if keep_best and trainer.curve.best_step is not None else last
    chosen = Checkpoint(folder_of(run.checkpoints, step))
    if problem := chosen.problem():
        raise TrainingError(
            f"checkpoint {chosen.path}: {problem}, expected the best one to be whole; take the last one with: "
            f"train --resume {run.path} training.adapter_from=last --allow-change training.adapter_from"
        )
    parent = prepared.parent
    if unchanged(chosen.path / "adapter_model.safetensors", None if parent is None else parent.adapter_file):
        raise TrainingError(
            f"step {step}: the adapter equals its start: no update has changed a weight, so nothing was learned; "
            "train more steps (training.n_epochs), or raise training.learning_rate"
        )
    _copy_adapter(chosen.path, run.adapter)
    prepared.tokenizer.save_pretrained(run.adapter)
    note = trainer.curve.overfitting()
    ending = "stopped early" if trainer.stopped_early else "finished"
    summary = f"{ending} at step {last}; the adapter is from step {step}"
    if note:
        summary = f"{note}; the adapter is from step {step}"
    elif not prepared.config.evaluation.enabled and (note := trainer.curve.still_falling(prepared.plan.n_epochs)):
        summary = f"{summary}; {note}"  # else the comparison says it
    run.event(summary, kind="result", step=step)
    run.set_status("succeeded", step=last, adapter_step=step, summary=summary, finished_at=now())
    return Outcome(ExitCode.DONE, summary)


def _copy_adapter(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    (target / MANIFEST).unlink(missing_ok=True)  # it is of the files that are replaced
    for name in (ADAPTER, ADAPTER_CONFIG):
        files.write_whole(target / name, (source / name).read_bytes())
    seal_adapter(target, Checkpoint(source).step)


def _interrupted(run: Run) -> str:
    return f"interrupted; resume with: train --resume {run.path}"


def _in_words(error: Exception, run: Run) -> TrainerError:
    """Put a full disk or a vanished file into words; any other unexpected error keeps its own."""
    if isinstance(error, TrainerError):
        return error
    if isinstance(error, OSError):
        return TrainingError(
            f"{error.filename or run.path}: {file_words(error, f'resume with: train --resume {run.path}')}"
        )
    if is_lost(error):
        return TrainingError(
            "another process of this run has ended, expected all of them to last; "
            f"resume with: train --resume {run.path}"
        )
    if isinstance(error, torch.OutOfMemoryError):
        return TrainingError("out of memory; lower memory.token_budget, or set model.quantization to nf4")
    return TrainingError(f"unexpected {type(error).__name__}: {error}; --debug shows where")
