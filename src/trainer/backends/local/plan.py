"""The plan of a run of this machine, in numbers and in words."""

from typing import TYPE_CHECKING

from trainer.backends.contract import Plan, TrainingNumbers
from trainer.backends.quote import Quote
from trainer.data.read.sources import without_validation
from trainer.data.render.overlength import in_words
from trainer.model.device import describe, held_memory_bytes
from trainer.model.shares import adapter_in_words, quantization_in_words
from trainer.training.memory import gib, process_bytes

if TYPE_CHECKING:
    from trainer.training.prepare import Prepared

MOST_SHOWN = 5  # rows that are too long, and warnings


def make_plan(prepared: "Prepared") -> "Plan[Prepared]":
    """Show what training will do. It bills nothing."""
    return Plan(
        prepared.config,
        Quote(items=(), source="this machine"),
        _rows(prepared),
        prepared,
        ready="config, data, tokens and memory are in order",
        numbers=_numbers(prepared),
        findings=prepared.data.report.findings,
        trained_tokens=prepared.data.num_tokens * prepared.plan.n_epochs,
    )


def _numbers(prepared: "Prepared") -> TrainingNumbers:
    plan, data, memory, model = prepared.plan, prepared.data, prepared.memory, prepared.config.model
    return TrainingNumbers(
        base=model.base,
        revision=prepared.base.revision,
        dtype=str(prepared.dtype).removeprefix("torch."),
        quantization=model.quantization,
        weights=prepared.shares,
        adapter_weights=prepared.num_trained,
        device=describe(prepared.device),
        rows_trained=len(data.train),
        rows_held_out=len(data.validation),
        num_tokens=data.num_tokens,
        num_supervised_tokens=data.num_supervised,
        longest_row=data.longest,
        n_epochs=plan.n_epochs,
        batch_size=plan.batch_size,
        steps_per_epoch=plan.steps_per_epoch,
        total_steps=plan.total_steps,
        learning_rate=plan.learning_rate,
        seed=plan.seed,
        max_length=plan.max_length,
        token_budget=plan.token_budget,
        recompute_layers=plan.recompute_layers,
        peak_memory_bytes=memory.peak_bytes,
        free_memory_bytes=memory.free_bytes,
        too_long=data.touched,
    )


def _rows(prepared: "Prepared") -> list[tuple[str, str]]:
    plan, data, model = prepared.plan, prepared.data, prepared.config.model
    share = data.num_supervised / data.num_tokens
    revision = f" at {prepared.base.revision[:12]}" if prepared.base.revision else ""
    number_format = str(prepared.dtype).removeprefix("torch.")
    weights = number_format if model.quantization == "none" else f"{model.quantization}, computing in {number_format}"
    counts = f"{len(data.train):,} rows to train on, {len(data.validation):,} to validate; {data.num_tokens:,} tokens"
    rows = [
        ("model", f"{model.base}{revision}, {weights}"),
        *_weights(prepared),
        ("device", describe(prepared.device)),
        ("data", f"{counts}, {data.num_supervised:,} supervised ({share:.0%}); longest row {data.longest:,}"),
    ]
    if lacking := without_validation(prepared.config.data):
        rows.append(("held out", lacking))
    steps = f"{plan.n_epochs} epochs of {plan.steps_per_epoch:,} steps with {plan.batch_size} conversations each"
    rate = f"learning rate {plan.learning_rate:.2g}, seed {plan.seed}"
    rows += [("plan", f"{steps}, {plan.total_steps:,} steps in all; {rate}"), ("memory", _memory(prepared))]
    if data.touched:
        rows.append(("length", in_words(data.touched, plan.max_length)))
    rows += [("", f"{note.place}: {note.num_tokens:,} tokens, {note.outcome}") for note in data.touched[:MOST_SHOWN]]
    if (hidden := len(data.touched) - MOST_SHOWN) > 0:
        rows.append(("", f"and {hidden:,} more; the run's manifest.json lists them all"))
    rows += [("warning", str(finding)) for finding in data.report.findings[:MOST_SHOWN]]
    if (hidden := len(data.report.findings) - MOST_SHOWN) > 0:
        rows.append(("", f"and {hidden} more warnings: trainer data check FILE"))
    return rows


def _weights(prepared: "Prepared") -> list[tuple[str, str]]:
    """Shares of the weights: what is quantized, and what gets an adapter."""
    shares, model = prepared.shares, prepared.config.model
    number_format = str(prepared.dtype).removeprefix("torch.")
    trained = f"{prepared.num_trained:,} weights are trained"
    rows = [("adapter", f"{adapter_in_words(shares)}; {trained}")]
    if model.quantization == "none":
        return rows
    return [("stored", quantization_in_words(shares, model.quantization, number_format)), *rows]


def _memory(prepared: "Prepared") -> str:
    """Memory for training; on a CPU also that of the whole process, as a person sees it."""
    plan, memory = prepared.plan, prepared.memory
    needed = f"about {gib(memory.peak_bytes)} of {gib(memory.free_bytes)} free"
    if prepared.device.type == "cpu":
        whole = process_bytes(memory, held_memory_bytes(), prepared.dtype.itemsize == 2)
        needed = (
            f"the process will take about {gib(whole)} (libraries and comparison included, as top shows it), "
            f"{gib(memory.peak_bytes)} of them for training; {gib(memory.free_bytes)} are free"
        )
    sharded = f"; the base sharded over {memory.num_shards} processes" if memory.num_shards > 1 else ""
    return (
        f"{needed}; {plan.token_budget:,} tokens at a time, activation checkpointing in {plan.recompute_layers} of "
        f"{memory.footprint.num_layers} layers{sharded} (estimated)"
    )
