"""A run's files as documents. What is damaged is left out and named; one damaged run hides no other."""

from pathlib import Path
from typing import Any

from trainer.cli.backends import ACTIVE, refreshed
from trainer.cli.documents.runs import Checkpoint, DataSource, Event, File, MadeFrom, RunSummary, Show, Thing
from trainer.cli.documents.verdicts import Verdict
from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.checkpoint import Checkpoint as SavedCheckpoint
from trainer.runs.damage import damaged, readable_manifest
from trainer.runs.ledger import Ledger
from trainer.runs.lifecycle import pending_note, silence
from trainer.runs.manifest import Manifest
from trainer.runs.progress import seconds_left
from trainer.runs.results import COLUMNS, last_values


def summary_of(run: Run, refresh: bool = False) -> RunSummary:
    """The run in short, with `refresh` brought up to date if its job may have moved."""
    known: dict[str, Any] = dict.fromkeys(RunSummary.model_fields) | {"name": run.name, "path": run.path, "damaged": []}
    try:
        status = (refreshed(run) if refresh else run).status()
        base = run.base_name()
        losses = last_values(run.path / "results.csv", ("train_loss", "valid_loss"))
        broken = damaged(run) + (["config.yaml"] if base is None else [])
        facts = {"backend": str(status.get("backend", "local")), "state": status["state"], "base": base}
        facts |= {name: _whole(status.get(name)) for name in ("step", "total_steps")}
        facts |= {name: _text(status.get(name)) for name in ("created_at", "updated_at")}
        facts |= {"damaged": broken, "silence": silence(run)}
        return RunSummary.model_validate(known | facts | losses)
    except Exception as error:  # whatever a damaged run meets, the others are listed
        return RunSummary.model_validate(known | {"problem": str(error)})


def shown(run: Run, settings: dict[str, Any] | None) -> Show:
    """All that `trainer show` knows of a run."""
    summary, status = summary_of(run), run.status()
    last = last_values(run.path / "results.csv", COLUMNS)
    page = run.report / "report.html"
    adapter = run.adapter / "adapter_model.safetensors"
    return Show(
        run=summary,
        summary=_text(status.get("summary")),
        error=_text(status.get("error")),
        note=pending_note(run),
        verdict=Verdict.of(run.comparison()),
        seconds_left=seconds_left(run, last.get("step", 0.0)) if summary.state in ACTIVE else None,
        last=last,
        adapter=str(run.adapter) if adapter.is_file() else None,
        report=str(page) if page.is_file() else None,
        made_from=made_from(readable_manifest(run)),
        settings=settings,
        bills=billing(run),
        files=[File(path=str(path), bytes=size_of(path)) for path in sorted(run.path.iterdir())],
    )


def made_from(manifest: Manifest | None) -> MadeFrom | None:
    """The origin of a run; None where no manifest tells it."""
    if manifest is None:
        return None
    return MadeFrom(
        base=manifest.base.name,
        base_revision=manifest.base.revision,
        base_weights_sha256=manifest.base.weights_sha256,
        data=[DataSource(path=file.path, role=file.role, sha256=file.sha256) for file in manifest.data],
        rows_trained=manifest.rows.train,
        rows_held_out=manifest.rows.validation,
        num_tokens=manifest.num_tokens,
        num_supervised_tokens=manifest.num_supervised_tokens,
        device=manifest.device,
        dtype=manifest.dtype,
        packages=dict(manifest.packages),
    )


def billing(run: Run) -> list[Thing] | None:
    """What the run's ledger holds that exists, or may exist, and costs; None where it is damaged."""
    try:
        entries = Ledger(run.path).billing()
    except ConfigError:
        return None
    return [
        Thing(
            run=run.name,
            kind=entry.thing.kind,
            key=entry.thing.key,
            place=entry.thing.place,
            bills=entry.thing.bills,
            may_exist_only=entry.step != "exists",
            delete_with=entry.thing.delete_with,
        )
        for entry in entries
    ]


def checkpoint_of(checkpoint: SavedCheckpoint, measured: dict[str, float], adapter_step: object) -> Checkpoint:
    """A checkpoint with what was `measured` at its step."""
    problem = checkpoint.problem()
    return Checkpoint(
        step=checkpoint.step,
        train_loss=measured.get("train_loss"),
        valid_loss=measured.get("valid_loss"),
        is_complete=problem is None,
        problem=problem,
        is_adapter=checkpoint.step == adapter_step,
        path=str(checkpoint.path),
    )


def size_of(path: Path) -> int:
    """Bytes of a file, or of all that is in a folder; what goes while it is looked at counts nothing."""
    files = path.rglob("*") if path.is_dir() else iter([path])
    return sum(map(_bytes, files))


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def event_of(record: dict[str, Any]) -> Event | None:
    """A line of events.jsonl; None where it is damaged."""
    try:
        return Event.model_validate(record)
    except ValueError:
        return None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
