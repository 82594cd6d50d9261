"""The one page that a migration ends with: what is won, what is lost, and what nobody knows."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import __version__
from trainer.backends.openai import metrics
from trainer.backends.openai.client import Record
from trainer.backends.openai.jobs import hyperparameters
from trainer.inference.report.page import NUM_OPEN, NUM_SHOWN, capitalized, render_page, row_view
from trainer.inference.report.run_page import criterion, measure_rows
from trainer.migration.bases import caution, known_bases
from trainer.runs import Run

MIB = 2**20
LOSSES = (("Last training loss", "train_loss"), ("Last loss on held-out rows", "valid_loss"))


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of a migration beside its comparison. `thousand`: the price of as many of the old model's answers."""

    source: str
    model: str
    place: str
    job: Record
    results: bytes | None
    missing: Sequence[str]
    settings: Sequence[str]
    thousand: float | None
    config: Path


def migration_page(run: Run, facts: Facts, result: Mapping[str, Any] | None, why_not: str) -> str:
    """The page; `why_not` says why there is no `result`."""
    rows = [] if result is None else sorted(result["rows"], key=_loss_of_row)
    keys = [] if result is None else list(result["models"])
    columns = [] if result is None else ["Old", "New"]
    verdict = None if result is None else result["verdict"]
    return render_page(
        "migration",
        f"{facts.model or facts.source} → {run.name}",
        old=facts.model or facts.source,
        new=f"{run.name}, on {run.manifest().base.name}",
        created_at="" if result is None else result["created_at"][:16].replace("T", " ") + " UTC",
        verdict=verdict,
        sentence=why_not if verdict is None else capitalized(verdict["sentence"]),
        remarks=[capitalized(remark) for remark in (verdict or {}).get("remarks", ())],
        criterion="" if result is None else criterion(result),
        notes=[] if result is None else [capitalized(note) for note in result["notes"]],
        won=list(_won(run, facts, verdict)),
        lost=list(_lost(run, verdict)),
        sides=list(_sides(run, facts)),
        measures=[] if result is None else list(measure_rows(result)),
        columns=columns,
        settings=[capitalized(line) for line in facts.settings],
        missing=[capitalized(line) for line in facts.missing],
        rows=[row_view(row, keys) for row in rows[:NUM_SHOWN]],
        num_open=min(NUM_OPEN, len(rows)),
        num_hidden=max(0, len(rows) - NUM_SHOWN),
        made=_made(run, facts, result),
        commands="\n".join(map(shlex.join, _commands(run, facts))),
        version=__version__,
    )


def _loss_of_row(row: Mapping[str, Any]) -> tuple[float, float]:
    return row["score"]["tuned"] - row["score"]["base"], row["score"]["tuned"]


def _won(run: Run, facts: Facts, verdict: Mapping[str, Any] | None) -> list[str]:
    lines = [_rows(verdict, "better")] if verdict is not None else []
    if facts.thousand is not None:
        lines.append(
            f"No price by the token: a thousand such answers of the old model cost up to {facts.thousand:,.2f} USD"
        )
    adapter = run.adapter / "adapter_model.safetensors"
    if adapter.is_file():
        lines.append(
            f"The weights are yours: {run.adapter} ({adapter.stat().st_size / MIB:,.1f} MiB); one folder of them: "
            f"trainer export {run.path}"
        )
    return [*lines, "It answers for as long as you keep it: no service ends it"]


def _lost(run: Run, verdict: Mapping[str, Any] | None) -> list[str]:
    lines = [_rows(verdict, "worse")] if verdict is not None else ["Unknown: the answers were not compared"]
    lines.append("You run it now: a machine for it, its hours, and its safety filters")
    base = next((base for base in known_bases() if base.name == run.manifest().base.name), None)
    if base is not None:
        gate = ", to be agreed to at the hub" if base.gated else ""
        bounds = f"{base.context:,} tokens of context, licence {base.licence}{gate}"
        tools = "" if base.tools else "; its chat template writes no tool calls"
        known = "" if base.name.startswith("builtin:") else f"; {caution()}"
        lines.append(f"The base's own bounds: {bounds}{tools}{known}")
    return lines


def _rows(verdict: Mapping[str, Any], kind: str) -> str:
    total = verdict["better"] + verdict["same"] + verdict["worse"]
    return f"Answers: beyond noise {kind} on {verdict[kind]:,} of {total:,} rows"


def _sides(run: Run, facts: Facts) -> list[tuple[str, str, str]]:
    config, manifest = run.config(), run.manifest()
    new = config.training
    ours = f"{new.method}, {new.n_epochs} epochs, batch {new.batch_size}, rate x {new.learning_rate_multiplier}"
    rows = [
        ("Model", facts.model or "none", f"{manifest.base.name} with the adapter of {run.name}"),
        ("Where", facts.place, manifest.device),
        ("Training", _training(facts.job), ours),
    ]
    old_results = metrics.results(metrics.by_step(metrics.read_csv(facts.results or b"")))
    for title, name in LOSSES:
        rows.append((title, _last(old_results, name), _last(run.results(), name)))
    return rows


def _training(job: Record) -> str:
    if not job:
        return "not known"
    numbers = hyperparameters(job)
    method = job.get("method")
    word = str(method.get("type")) if isinstance(method, Mapping) else "by the service"
    parts = [f"{name} {numbers[key]:g}" for key, name in NUMBERS.items() if key in numbers]
    return ", ".join([word, *parts])


NUMBERS = {"n_epochs": "epochs", "batch_size": "batch", "learning_rate_multiplier": "rate x", "beta": "beta"}


def _last(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    found = [row[name] for row in rows if row.get(name) is not None]
    return f"{found[-1]:.3f}" if found else "not known"


def _made(run: Run, facts: Facts, result: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    files = [(f"Data, {file.role}", f"{file.path} (sha256 {file.sha256[:16]}…)") for file in run.manifest().data]
    job = [("Job", f"{facts.job['id']} of {facts.place}")] if facts.job else []
    on = [] if result is None else [("Compared on", ", ".join(result["files"]))]
    return [*job, *files, *on, ("Config", str(facts.config)), ("Run", str(run.path))]


def _commands(run: Run, facts: Facts) -> list[list[str]]:
    """Commands that repeat the comparison, and try the new model."""
    return [
        ["trainer", "migrate", facts.source, "--output", str(facts.config.parent)],
        ["trainer", "chat", str(run.path)],
    ]
