"""The documents of commands that look at runs."""

from typing import Any, Literal

from trainer.cli.documents.document import Document, Part
from trainer.cli.documents.verdicts import Verdict

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
