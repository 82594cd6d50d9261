"""What the service keeps. Its time is a clock of its own, moved by requests and by the test."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

Flavour = Literal["openai", "azure"]
ENDED = frozenset({"succeeded", "failed", "cancelled"})
START = 1_795_000_000.0  # 2026-11-18
ACCOUNT, TARGET = "demo-openai", "demo-target"  # where the jobs are, and a resource of another region


def placed(account: str, name: str) -> str:
    """The key of a deployment: its name in the resource of the jobs, TARGET/name in the other one."""
    return f"{account}/{name}" if account == TARGET else name


@dataclass
class Clock:
    """Seconds of the service's time. Each request moves it by `a_request`."""

    now: float = START
    a_request: float = 0.0

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class File:
    id: str
    filename: str
    purpose: str
    content: bytes
    created_at: float
    problem: str = ""  # why processing rejects it


@dataclass
class Upload:
    id: str
    filename: str
    purpose: str
    num_bytes: int
    created_at: float
    parts: dict[str, bytes] = field(default_factory=dict)
    state: str = "pending"
    file: File | None = None


@dataclass
class Job:
    """`elapsed` is how long it has been worked on, without pauses; `step` the last finished one."""

    id: str
    model: str
    training_file: str
    validation_file: str | None
    asked: dict[str, Any]  # the request's body
    rows: list[dict[str, Any]]
    validation_rows: list[dict[str, Any]]
    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    seed: int
    created_at: float
    elapsed: float = 0.0
    state: str = "validating_files"
    step: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None
    finished_at: float | None = None
    fine_tuned_model: str | None = None
    result_files: list[str] = field(default_factory=list)
    trained_tokens: int | None = None
    method: str = "supervised"
    beta: float = 0.1

    @property
    def steps_an_epoch(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    @property
    def num_steps(self) -> int:
        return self.steps_an_epoch * self.n_epochs


@dataclass
class TunedModel:
    """A result or a checkpoint; `rows` are what it has learned."""

    id: str
    base: str
    job: str
    rows: list[dict[str, Any]]
    created_at: float
    is_checkpoint: bool = False


@dataclass
class Deployment:
    name: str  # as `placed` has it
    body: dict[str, Any]
    created_at: float
    used_at: float
    state: str = "Creating"
    ready_at: float = 0.0

    @property
    def model(self) -> str:
        return str(self.body["properties"]["model"]["name"])


@dataclass(frozen=True, order=True)
class Kept:
    """Something at the service that somebody has to know of. `bills`: it costs now, or would go on to cost."""

    kind: str
    id: str
    bills: bool


@dataclass
class State:
    """Everything one account holds."""

    flavour: Flavour
    clock: Clock = field(default_factory=Clock)
    files: dict[str, File] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    models: dict[str, TunedModel] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    copies: dict[str, tuple[str, float]] = field(default_factory=dict)  # checkpoint -> how it ends, and when
    num_copied: int = 0
    made: int = 0
    region: str = "swedencentral"

    @property
    def is_azure(self) -> bool:
        return self.flavour == "azure"

    @property
    def at(self) -> int:
        return int(self.clock.now)

    def new_id(self, prefix: str, length: int = 24) -> str:
        """An id like the service's own, the same in every run of a test."""
        self.made += 1
        return prefix + hashlib.sha256(f"{prefix}{self.made}".encode()).hexdigest()[:length]

    def inventory(self) -> list[Kept]:
        """Files people uploaded, jobs, models and deployments. Result files go with their job."""
        kept = [Kept("file", file.id, False) for file in self.files.values() if file.purpose == "fine-tune"]
        kept += [Kept("job", job.id, job.state not in ENDED) for job in self.jobs.values()]
        kept += [Kept("model", model.id, False) for model in self.models.values() if not model.is_checkpoint]
        kept += [Kept("deployment", deployment.name, True) for deployment in self.deployments.values()]
        kept += [Kept("copy", name, False) for name, (end, _) in self.copies.items() if end != "Failed"]
        return sorted(kept)
