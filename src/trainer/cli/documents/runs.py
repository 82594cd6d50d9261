"""The documents of runs, and how a run's files become them: one damaged run hides no other."""

from pathlib import Path
from typing import Any, Literal

from trainer.cli.backends import ACTIVE, refreshed
from trainer.cli.documents.document import Document, Part
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

State = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]


class RunSummary(Part):
    """A run in short."""

    name: str
    """Its name."""
    path: str
    """Its folder."""
    backend: str | None
    """Where it executes: local, azureml or openai."""
    state: State | None
    """Where it stands; null where the folder cannot be read."""
    step: int | None
    """The last step that was measured."""
    total_steps: int | None
    """Steps in all, once that is known."""
    base: str | None
    """The model that is tuned, as the config names it."""
    train_loss: float | None
    """The last one."""
    valid_loss: float | None
    """The last one."""
    created_at: str | None
    """When it was made: ISO 8601, UTC, as all times."""
    updated_at: str | None
    """When its state was last written."""
    damaged: list[str]
    """Its files that cannot be what it wrote."""
    silence: str | None
    """How long nothing was heard of a run whose process is not on this machine; null where it may well be alive."""
    problem: str | None
    """Why nothing else is known of it."""


class Runs(Document):
    """The runs below --root, oldest first."""

    document: Literal["runs"] = "runs"
    """The command."""
    root: str
    """The folder."""
    runs: list[RunSummary]
    """Each run."""


class Thing(Part):
    """Something at a service that exists, or may exist, and costs until it is deleted."""

    run: str
    """The run that made it."""
    kind: str
    """What it is: job, deployment, model, file and so on."""
    key: str
    """Its name there."""
    place: str
    """The account, workspace or resource that holds it."""
    bills: str
    """What it costs, and until when."""
    may_exist_only: bool
    """Whether an answer was lost, so that nobody knows whether it exists."""
    delete_with: str
    """The command that deletes it."""


class DataSource(Part):
    """A file that a run was made from."""

    path: str
    """Its path then."""
    role: str
    """train or validation."""
    sha256: str
    """The digest of its contents."""


class MadeFrom(Part):
    """What the run was made from, as its manifest.json has it."""

    base: str
    """The base model."""
    base_revision: str | None
    """Its commit at the model hub."""
    base_weights_sha256: str | None
    """The digest of its weights, where they are in a folder."""
    data: list[DataSource]
    """The data files."""
    rows_trained: int
    """Rows trained on."""
    rows_held_out: int
    """Rows held out."""
    num_tokens: int
    """Tokens of the rows trained on."""
    num_supervised_tokens: int
    """Those that enter the loss."""
    device: str
    """What computed it."""
    dtype: str
    """In which number format."""
    packages: dict[str, str]
    """Versions."""


class File(Part):
    """An entry of the run's folder."""

    path: str
    """Its path."""
    bytes: int
    """Its size, of a folder with all that is in it."""


class Show(Document):
    """One run. `train` and `trainer resume` end with this document, too."""

    document: Literal["show"] = "show"
    """The command."""
    run: RunSummary
    """In short."""
    summary: str | None
    """How it ended, in a sentence."""
    error: str | None
    """Why it failed."""
    note: str | None
    """What it still lacks, and what to do about it."""
    verdict: Verdict | None
    """Whether it got better; null before its comparison."""
    seconds_left: float | None
    """Until its last step, at the median time of the last ones; null where that is not known."""
    last: dict[str, float]
    """The last value of each column of results.csv."""
    adapter: str | None
    """The folder of the result, once there is one."""
    report: str | None
    """The page of the comparison, once there is one."""
    made_from: MadeFrom | None
    """Its origin; null before its manifest.json is written, and where that is damaged."""
    settings: dict[str, Any] | None
    """Settings that are no defaults, as section.name; null where config.yaml is damaged."""
    bills: list[Thing] | None
    """What it has made that may bill; null where its ledger is damaged."""
    files: list[File]
    """What is in its folder."""


class Checkpoint(Part):
    """A resumable state."""

    step: int
    """Its step."""
    train_loss: float | None
    """As measured at that step."""
    valid_loss: float | None
    """As measured at that step."""
    is_complete: bool
    """Whether every file is as its manifest says."""
    problem: str | None
    """Why it cannot be used."""
    is_adapter: bool
    """Whether the run's adapter is from this step."""
    path: str
    """Its folder; as a base it is RUN@STEP."""


class Checkpoints(Document):
    """The checkpoints of a run, in the order of their steps."""

    document: Literal["checkpoints"] = "checkpoints"
    """The command."""
    run: str
    """The run's name."""
    checkpoints: list[Checkpoint]
    """Each of them."""


class Event(Part):
    """Something that happened."""

    created_at: str
    """When."""
    level: Literal["info", "warning", "error"]
    """How much it matters."""
    type: str
    """Its kind, in a word."""
    message: str
    """What, in words."""
    data: dict[str, Any]
    """Figures that belong to it."""


class Logs(Document):
    """What happened in a run, oldest first; --follow goes on and is for people only."""

    document: Literal["logs"] = "logs"
    """The command."""
    run: RunSummary
    """In short."""
    note: str | None
    """What it still lacks, and what to do about it."""
    events: list[Event]
    """All of them, or the last ones with --tail."""


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
