"""Where a run's model comes from, how its training went, and how to do it again, in words for a report."""

import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from trainer.config.schema import RunConfig
from trainer.runs import Run
from trainer.runs.manifest import Manifest
from trainer.training.curve import recorded_curve


def learning(run: Run) -> str:
    """Which step became the adapter, and whether the run began to overfit, or ended too early."""
    status = run.status()
    step, total = status.get("adapter_step"), status.get("total_steps")
    chosen = f"The adapter is from step {step:,} of {total:,}. " if step and total else ""
    curve, n_epochs = recorded_curve(run)
    if curve.best_step is None:
        return f"{chosen}Nothing was held out during training, so overfitting could not be seen."
    if note := curve.overfitting():
        return f"{chosen}Overfitting: {note}. From there on the model learned the training rows by heart."
    if note := curve.still_falling(n_epochs):
        return f"{chosen}{note[:1].upper()}{note[1:]}."
    return f"{chosen}No sign of overfitting: the loss on the held-out rows did not rise in the end."


def origin(run: Run, result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Model, data, settings and time, each with its name."""
    manifest, config = run.manifest(), run.config()
    base, rows = manifest.base, manifest.rows
    pinned = base.revision or base.weights_sha256
    facts = [
        ("Base model", f"{base.name} ({pinned})" if pinned else base.name),
        ("Method", _method(config, manifest)),
        ("Training", _training(run, config, manifest)),
        ("Rows", f"{rows.train:,} trained, {rows.validation:,} held out"),
        ("Tokens", f"{manifest.num_tokens:,}, of which {manifest.num_supervised_tokens:,} supervised"),
        *((f"Data, {file.role}", f"{file.path} (sha256 {file.sha256[:16]}…)") for file in manifest.data),
        (
            "Compared on",
            f"{', '.join(result['files'])}; answers of up to {result['settings']['max_new_tokens']:,} tokens",
        ),
        ("Device", manifest.device),
        ("Time", f"{_training_time(run)}; {duration(result['seconds'])} for this comparison"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in manifest.packages.items())),
    ]
    if parent := manifest.parent:
        step = f" at step {parent.step:,}" if parent.step else ""
        facts.insert(1, ("Trained further from", f"run {parent.run}{step}; the base is the model before both"))
    if manifest.git_revision:
        facts.append(("Git revision", manifest.git_revision))
    return facts


def _method(config: RunConfig, manifest: Manifest) -> str:
    if config.backend.kind == "openai":
        return "supervised fine-tuning by the service, in its own way"
    weights = "" if config.model.quantization == "none" else f", base weights in {config.model.quantization}"
    return f"LoRA of rank {config.lora.r}, alpha {config.lora.lora_alpha}, in {manifest.dtype}{weights}"


def _training(run: Run, config: RunConfig, manifest: Manifest) -> str:
    training = config.training
    rate, seed = f"learning rate multiplier {training.learning_rate_multiplier}", training.seed
    if training.learning_rate is not None:
        rate, seed = f"learning rate {training.learning_rate:g}", manifest.seed
    steps = run.status().get("total_steps") or run.status().get("step") or 0
    return f"{training.n_epochs} epochs, {steps:,} steps of {training.batch_size} conversations, {rate}, seed {seed}"


def commands(run: Run, result: Mapping[str, Any]) -> str:
    """What to type to get the same run, and the same comparison, again."""
    settings, path = result["settings"], str(run.path)
    own = result["files"] == list(run.config().data.validation_paths)
    words = ["trainer", "evaluate", path, *([] if own else ["--rows", *result["files"]])]
    words += ["--max-rows", str(settings["max_rows"]), "--max-new-tokens", str(settings["max_new_tokens"])]
    train = ["train", "--config", f"{path}/config.yaml", f"run.name={run.name}-again"]
    return f"{shlex.join(train)}\n{shlex.join(words)}"


def _training_time(run: Run) -> str:
    """From the first moment to the last, with the time for which a run that was resumed lay still."""
    status = run.status()
    if not (status.get("created_at") and status.get("finished_at")):
        return "not finished"
    begin, end = (datetime.fromisoformat(status[key]) for key in ("created_at", "finished_at"))
    return f"{duration((end - begin).total_seconds())} from start to adapter"


def duration(seconds: float) -> str:
    """A time for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
