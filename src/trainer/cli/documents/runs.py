"""The documents of runs, and how a run's files become them: one damaged run hides no other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from trainer.cli.backends import ACTIVE, refreshed
from trainer.cli.documents.document import Document, Part
from trainer.cli.documents.verdicts import Verdict
from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.checkpoint import Checkpoint as SavedCheckpoint
from trainer.runs.damage import UNREADABLE, damaged, readable_manifest, reason_of
from trainer.runs.ledger import Ledger
from trainer.runs.lifecycle import last_output, pending_note, silence
from trainer.runs.manifest import Manifest
from trainer.runs.progress import seconds_left
from trainer.runs.queue import place_of
from trainer.runs.results import COLUMNS, last_values
from trainer.runs.summary import cost_so_far

State = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]


Gate = Literal["passed", "failed"]


class RunSummary(Part):
    """A run in short."""

    name: str
    """Its name."""
    path: str
    """Its folder."""
    backend: str | None
    """The backend: local, azureml or openai."""
    state: State | None
    """Its state; null where the folder cannot be read."""
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
    """Time of its creation: ISO 8601, UTC, as all times."""
    updated_at: str | None
    """Time at which its state was last written."""
    damaged: list[str]
    """Its files that cannot be what it wrote."""
    silence: str | None
    """Time since a run of another machine last wrote, in words; null where it may well be alive."""
    queue_place: int | None
    """Its place in the queue, from 1; null where it does not wait there."""
    cost_so_far: float | None
    """Its cost so far, estimated by quoted prices; null where nothing bills or no price is known."""
    currency: str | None
    """The currency of its cost."""
    problem: str | None
    """The reason why nothing else is known of it."""


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
    """Its kind: job, deployment, model, file and so on."""
    key: str
    """Its name there."""
    place: str
    """The account, workspace or resource that holds it."""
    bills: str
    """Its price, and the end of billing."""
    may_exist_only: bool
    """True where an answer was lost, so that nobody knows if it exists."""
    delete_with: str
    """The command that deletes it."""


class RunFile(Part):
    """A file that a run was made from."""

    path: str
    """Its path then."""
    role: str
    """train or validation."""
    sha256: str
    """The digest of its contents."""


class MadeFrom(Part):
    """Origin of a run, as its manifest.json has it."""

    base: str
    """The base model."""
    base_revision: str | None
    """Its commit at the model hub."""
    base_weights_sha256: str | None
    """The digest of its weights, where they are in a folder."""
    data: list[RunFile]
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
    """The device that computed it."""
    dtype: str
    """Its number format."""
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
    """Its end, in a sentence."""
    error: str | None
    """The reason of its failure."""
    output: list[str]
    """Last lines that a failed run printed; empty otherwise, and where none were kept."""
    note: str | None
    """Parts that it still lacks, and the remedy."""
    verdict: Verdict | None
    """The verdict of its comparison; null before that."""
    gate: Gate | None
    """Outcome of `evaluation.gate`; null without one, and before the comparison."""
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
    """Things that it has made and that may bill; null where its ledger is damaged."""
    files: list[File]
    """Contents of its folder."""


class Checkpoint(Part):
    """A resumable state."""

    step: int
    """Its step."""
    train_loss: float | None
    """As measured at that step."""
    valid_loss: float | None
    """As measured at that step."""
    is_complete: bool
    """True where every file is as its manifest says."""
    problem: str | None
    """The reason why it cannot be used."""
    is_adapter: bool
    """True where the run's adapter is from this step."""
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
    """Time of the event."""
    level: Literal["info", "warning", "error"]
    """Its severity."""
    type: str
    """Its kind, in a word."""
    message: str
    """The event in words."""
    data: dict[str, Any]
    """Figures that belong to it."""


class Logs(Document):
    """Events of a run, oldest first. `--follow` prints text for people only."""

    document: Literal["logs"] = "logs"
    """The command."""
    run: RunSummary
    """In short."""
    note: str | None
    """Parts that it still lacks, and the remedy."""
    events: list[Event]
    """All of them, or the last ones with --tail."""
    output: list[str]
    """Last lines that a failed run printed; empty otherwise, and where none were kept."""


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
        place = place_of(run.path)
        facts |= {"damaged": broken, "silence": silence(run), "queue_place": place and place.number}
        facts |= _cost_of(run, status, broken)
        return RunSummary.model_validate(known | facts | losses)
    except UNREADABLE as error:  # a damaged run hides no other
        return RunSummary.model_validate(known | {"problem": reason_of(error)})


def _cost_of(run: Run, status: Mapping[str, Any], broken: Sequence[str]) -> dict[str, Any]:
    entries = [] if "ledger.jsonl" in broken else Ledger(run.path).entries()
    cost, currency = cost_so_far(run, entries, status)
    return {"cost_so_far": cost, "currency": None if cost is None else currency}


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
        output=last_output(run),
        note=pending_note(run),
        verdict=Verdict.of(run.comparison()),
        gate=_gate(status.get("gate")),
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
        data=[RunFile(path=file.path, role=file.role, sha256=file.sha256) for file in manifest.data],
        rows_trained=manifest.rows.train,
        rows_held_out=manifest.rows.validation,
        num_tokens=manifest.num_tokens,
        num_supervised_tokens=manifest.num_supervised_tokens,
        device=manifest.device,
        dtype=manifest.dtype,
        packages=dict(manifest.packages),
    )


def billing(run: Run) -> list[Thing] | None:
    """Things in the run's ledger that exist, or may exist, and bill; None where the ledger is damaged."""
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


def _gate(found: object) -> Gate | None:
    match found:
        case "passed" | "failed":
            return found
    return None
