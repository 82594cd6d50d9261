"""Verbs of every backend for a run, and of a service for its model. Commands know no others.

The run's folder is here for every run: the backend writes into it what happens elsewhere, in the same files.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from rich.console import Console

from trainer.backends.http import Say
from trainer.backends.quote import Quote, agreed_with, note_agreed
from trainer.config.openai import TrainingType
from trainer.config.schema import RunConfig
from trainer.data.render.overlength import Touched
from trainer.data.rules.findings import Finding
from trainer.errors import Attempts, ConfigError
from trainer.inference.client import ChatClient
from trainer.kinds import executes_here
from trainer.runs import Run, create_run, find_begun, find_or_adopt, refuse_existing
from trainer.runs.damage import readable_manifest
from trainer.runs.ledger import Ledger, Thing
from trainer.runs.lifecycle import enqueue, further
from trainer.runs.manifest import WeightShare
from trainer.runs.queue import Queue
from trainer.runs.run import Outcome, State

if TYPE_CHECKING:
    from trainer.data.render.rendering import Renderer
    from trainer.training.dataset import TrainingData

T = TypeVar("T")
Control = Literal["pause", "resume", "cancel", "delete"]


@dataclass(frozen=True, slots=True)
class Screen:
    """Display of a backend that works in this process, also while libraries load."""

    console: Console
    loading: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True, slots=True)
class Changes:
    """Settings that a resumed run gets (KEY=VALUE), and names of those that may change its result."""

    overrides: Sequence[str] = ()
    allowed: Collection[str] = ()

    def __bool__(self) -> bool:
        return bool(self.overrides or self.allowed)


UNCHANGED = Changes()


@dataclass(frozen=True, slots=True)
class TrainingNumbers:
    """Model, data and every resolved number of a run on this machine, before it computes."""

    base: str
    revision: str | None
    dtype: str
    quantization: str
    weights: Sequence[WeightShare]
    adapter_weights: int
    device: str
    rows_trained: int
    rows_held_out: int
    num_tokens: int
    num_supervised_tokens: int
    longest_row: int
    n_epochs: int
    batch_size: int
    steps_per_epoch: int
    total_steps: int
    learning_rate: float
    seed: int
    max_length: int
    token_budget: int
    recompute_layers: int
    peak_memory_bytes: int
    free_memory_bytes: int
    too_long: Sequence[Touched]


@dataclass(frozen=True, slots=True)
class Preview:
    """Rows as the model of a config reads them."""

    data: "TrainingData"
    renderer: "Renderer"
    max_length: int


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a service: its outcome, and the finding, or the reason why it could not run."""

    what: str
    outcome: Literal["ok", "problem", "not looked at"]
    found: str


@dataclass(frozen=True, slots=True)
class UploadFile:
    """A file that a run would upload."""

    path: str
    bytes: int


def check_lines(checks: Sequence[Check]) -> list[str]:
    """A table of checks as lines of text, in columns."""
    width = max((len(check.what) for check in checks), default=0)
    return [f"{check.outcome:<14}{check.what:<{width + 2}}{check.found}" for check in checks]


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """A checked run: its price, and what a person should see before it starts."""

    config: RunConfig  # without `auto`
    quote: Quote
    rows: Sequence[tuple[str, str]]  # title and text of each line
    details: T  # what `launch` needs and the backend alone understands
    text: str = ""  # shown by --check below the rows: the job as it will be submitted
    ready: str = "nothing has been created and nothing bills"  # what a check has shown
    numbers: TrainingNumbers | None = None  # of a run of this machine
    findings: Sequence[Finding] = ()  # warnings about its data
    doubts: Sequence[str] = ()  # contradictions that a person settles before it starts, a sentence each
    checks: Sequence[Check] = ()  # of the service; empty where there is none to check
    files: Sequence[UploadFile] = ()  # uploaded beside the job
    trained_tokens: int | None = None  # tokens of the training rows times their epochs; None where nobody counts them
    ceiling: float | None = None  # what the run costs at most, where its backend ends it in time


@dataclass(frozen=True, slots=True)
class DeploymentPlan(Generic[T]):
    """A checked deployment that does not exist yet."""

    name: str
    quote: Quote
    rows: Sequence[tuple[str, str]]
    details: T
    doubts: Sequence[str] = ()  # as those of a Plan
    checks: Sequence[Check] = ()


@dataclass(frozen=True, slots=True)
class DeploymentOptions:
    """Options of `trainer deploy`; None where the backend decides. A backend refuses what it cannot honor."""

    name: str | None = None
    checkpoint: str | None = None
    sku: str | None = None
    capacity: int | None = None
    mode: str | None = None
    instance_type: str | None = None
    instance_count: int | None = None
    resource: str | None = None  # another one than the config's
    copies: bool = False  # the checkpoint to that resource
    ignore_gate: bool = False  # of the run's config


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A deployment, as the service reports it now."""

    name: str  # for people, and for --endpoint
    thing: Thing  # of the run's ledger
    run: str  # the run's name, or empty
    state: str
    model: str
    cost: str = ""  # so far, or by the hour
    until: str = ""  # when the service deletes it by itself
    url: str = ""
    made_at: str = ""  # ISO 8601, as are the other times
    hourly: float | None = None  # as quoted; None where it is not known
    so_far: float | None = None  # an estimate, by hours; None where the price is not known
    currency: str = "USD"
    deletes_at: str = ""  # by the service itself, where that is certain


@dataclass(frozen=True, slots=True)
class EndpointKey:
    """The secret that calls of an endpoint need; `value` is None where there is none, and `words` say what takes its
    place.
    """

    value: str | None = field(repr=False)
    words: str


@dataclass(frozen=True, slots=True)
class MachineSize:
    """A machine that a service rents. `gpu` is empty where nobody says which it has."""

    name: str
    num_gpus: int
    gpu: str
    gpu_memory_bytes: int
    num_cores: int
    memory_bytes: int
    disk_bytes: int
    driver: str  # the family of NVIDIA's driver: compute or grid
    as_of: str  # the day on which these numbers were right
    retired: str = ""  # since when


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """A model of the service. `can_tune` is None where the service does not say."""

    name: str
    can_tune: bool | None
    tuning_until: date | None  # when new jobs end
    inference_until: date | None
    lifecycle: str
    is_own: bool  # made by fine-tuning
    methods: tuple[str, ...] = ()  # of training; none where they are not known
    training_types: tuple[str, ...] = ()
    new_customers_until: date | None = None  # when new jobs end for those who have not tuned it before
    training_flags: Mapping[TrainingType, bool] = field(
        default_factory=dict
    )  # the types that are listed for it, or not


class Backend(ABC, Generic[T]):
    """A place where runs execute. Verbs raise ConfigError for the user's mistakes, BackendError for the service's."""

    where: ClassVar[str]  # its runs execute, in words
    has_preview: ClassVar[bool] = False  # whether it renders rows with the tokenizer that trains them
    keeps_adapter: ClassVar[bool] = True  # whether the run's adapter comes here, so that it can be loaded here
    auto_deploys: ClassVar[bool] = False  # whether a run's model is deployed at its end
    poll_seconds: ClassVar[float] = 5.0  # between two looks at a run; a service is asked less often than a file
    resumable: ClassVar[tuple[State, ...]] = ("paused",)  # states in which a run can be resumed
    consequences: ClassVar[Mapping[Control, str]]  # cost and loss of each control that it has, in sentences

    def refuse_at_once(self, config: RunConfig, may_exist: bool, detach: bool, changes: Changes = UNCHANGED) -> None:
        """Refuse what cannot be right, as far as it can be known before anything is loaded or asked."""
        attempts = Attempts()
        attempts.make(self.refuse_unfit, config)
        if changes:
            attempts.errors.append(
                ConfigError(
                    "--allow-change: is for backend.kind=local, whose runs resume with other settings, expected none; "
                    "remove it"
                )
            )
        attempts.make(refuse_folder, config, may_exist)
        attempts.end()

    def refuse_unfit(self, config: RunConfig) -> None:
        """Raises: ConfigError, for a deployment that is not made there."""
        if config.backend.auto_deploy and not self.auto_deploys:
            raise ConfigError(
                f"backend.auto_deploy: is set, and nothing is deployed by itself {self.where}, expected the openai "
                "backend; remove it, and see trainer deploy"
            )

    def in_processes(self, arguments: Sequence[str], say: Say) -> int | None:
        """Run this command in several processes instead; their exit code, or None where this one is enough."""
        return None

    def existing(self, config: RunConfig) -> Run | None:
        """The run that --auto-resume resumes without another check or quote: it was agreed to when it was created."""
        return find_begun(config)

    @abstractmethod
    def check(self, config: RunConfig, say: Say, may_exist: bool = False) -> Plan[T]:
        """Verify everything that can be verified without creating anything; report all findings at once."""

    def check_waiting(self, config: RunConfig, say: Say, num_gpus: int | None, may_exist: bool = False) -> Plan[T]:
        """`check`, for a run that waits in the queue of this machine; `num_gpus` only for one that executes here."""
        if num_gpus is not None:
            raise ConfigError("--gpus: is for backend.kind=local, expected none; remove it")
        return self.check(config, say, may_exist)

    def plan_to_keep(self, plan: Plan[T]) -> Plan[Any]:
        """The plan without what only a launch in this process needs, for `create` alone: a grid keeps many."""
        return plan

    def preview(self, plan: Plan[T]) -> Preview:
        """Rows as they are trained, where the backend `has_preview`."""
        raise ConfigError("--preview: is for backend.kind=local, expected none; add backend.kind=local to look")

    def create(self, plan: Plan[T], may_exist: bool) -> Run:
        """Make the run's folder, or with `may_exist` take the one that is there; the plan's quote is agreed to."""
        run = (find_or_adopt(plan.config) if may_exist else None) or create_run(plan.config)
        note_agreed(run, plan.quote)
        return run

    @abstractmethod
    def launch(self, plan: Plan[T], run: Run, say: Say, changes: Changes = UNCHANGED) -> None:
        """Start the run. Called again for the same run it finds what exists and resumes there."""

    @abstractmethod
    def follow(self, run: Run, say: Say) -> Outcome:
        """Keep the run's files up to date until it ends, and then fetch its result."""

    @abstractmethod
    def detach(self, run: Run, say: Say) -> None:
        """Leave the launched run to itself, and say how to follow and end it."""

    def enqueue(self, run: Run, say: Say, num_gpus: int | None = None, quote: Quote | None = None) -> None:
        """Let the run wait in the queue of this machine, which a worker in the background starts.

        `quote` is the one that was agreed to; without it, the one that is kept with the run.

        Raises: ConfigError, for a run that cannot wait or is there already, or that bills at no agreed price;
        TrainingError.
        """
        self.refuse_waiting(run)
        agreed = agreed_with(run) if quote is None else quote.agreed()
        if quote is None and agreed is None and not executes_here(run.backend):
            raise ConfigError(
                f"run {run.name!r}: would bill {self.where}, and no price of it was agreed to, expected one; "
                f"see it and start with: trainer resume {run.path}"
            )
        number = enqueue(run, num_gpus, agreed)
        Queue(run.path.parent).start_worker()
        say(f"{run.name} waits in the queue, place {number}; see all: trainer queue --root {run.path.parent}")
        say(f"follow it: trainer logs {run.path} --follow\ntake it out: trainer queue remove {run.path}")

    def refuse_waiting(self, run: Run) -> None:
        """Raises: ConfigError, for a run that the queue cannot start."""
        if Ledger(run.path).entries():
            raise ConfigError(
                f"run {run.name!r}: has been launched {self.where}, expected one that has not; "
                f"resume it with: trainer resume {run.path}"
            )

    @abstractmethod
    def refresh(self, run: Run, say: Say) -> None:
        """Bring the run's files up to date once."""

    def attend(self, run: Run, say: Say) -> None:
        """Refresh a run for someone who waits for its end: what `follow` would do for it is done here too."""
        self.refresh(run, say)

    @abstractmethod
    def pause(self, run: Run, say: Say, wait_seconds: float = 60.0) -> None:
        """Stop the run with a checkpoint, so that it can be resumed."""

    @abstractmethod
    def resume(self, run: Run, say: Say, changes: Changes = UNCHANGED) -> None:
        """Resume an interrupted launch, a paused run, or one that lost its machine."""

    @abstractmethod
    def cancel(self, run: Run, say: Say, wait_seconds: float = 60.0) -> None:
        """End the run for good."""

    @abstractmethod
    def delete(self, run: Run, say: Say) -> None:
        """Remove what the run left at the service, before its folder is deleted."""

    def consequence(self, run: Run, control: Control) -> str | None:
        """Cost and loss of a control, in sentences; None where the run's state, or the backend, rules it out."""
        state = run.state
        match control:
            case "pause":
                applies = state in ("running", "validating_files")
            case "resume":
                applies = state in self.resumable
            case "cancel":
                applies = state in ("validating_files", "queued", "running", "paused")
            case "delete":
                applies = state in ("succeeded", "failed", "cancelled", "paused")
        return self.consequences.get(control) if applies else None

    def facts(self, run: Run) -> Mapping[str, object]:
        """Facts that matter first of a run, in the order of display; None where one is not known."""
        adapter = run.adapter if (run.adapter / "adapter_model.safetensors").is_file() else None
        return {"adapter": adapter or f"none so far; {further(run)}"}

    def after_interrupt(self, run: Run) -> str:
        """Words on what Ctrl-C left behind, and what to do about it."""
        if Ledger(run.path).billing():
            return (
                f"the job keeps running; follow it: trainer logs {run.path} --follow\nend it: trainer cancel {run.path}"
            )
        return f"nothing bills; resume: train --resume {run.path}\nremove what is there: trainer delete {run.path}"


class Deploys(ABC, Generic[T]):
    """A service that keeps models and answers with them."""

    @abstractmethod
    def models(self, config: RunConfig, every: bool, say: Say) -> Sequence[ServiceModel]:
        """List what the service can tune, or with `every` all its models; say who can use it."""

    def sizes(self, config: RunConfig, refresh: bool, say: Say) -> Sequence[MachineSize]:
        """List the GPU machines that are known, with `refresh` after reading those that the subscription offers."""
        raise ConfigError(
            f"backend.kind: is {config.backend.kind!r}, expected 'azureml', which trains on machines that one chooses"
        )

    @abstractmethod
    def register(self, run: Run, settings: RunConfig, name: str | None, say: Say) -> str:
        """Keep the run's adapter as a model of the service; returns its name and version."""

    @abstractmethod
    def plan_deployment(self, run: Run, settings: RunConfig, options: DeploymentOptions, say: Say) -> DeploymentPlan[T]:
        """Verify and quote a deployment without making it; `settings` say where it goes."""

    @abstractmethod
    def deploy(self, plan: DeploymentPlan[T], run: Run, say: Say) -> Endpoint:
        """Put the run's model behind an endpoint."""

    @abstractmethod
    def endpoints(self, run: Run, say: Say) -> Sequence[Endpoint]:
        """List what of the run is deployed."""

    @abstractmethod
    def known_endpoints(self, run: Run) -> Sequence[Endpoint]:
        """List what of the run is deployed by its ledger, without asking the service."""

    @abstractmethod
    def key(self, run: Run, deployment: Thing) -> EndpointKey:
        """Find the key that one of the run's deployments is called with."""

    @abstractmethod
    def remove(self, run: Run, deployment: Thing, say: Say) -> None:
        """Delete one of the run's deployments, and leave the others, also those of its name elsewhere."""

    @abstractmethod
    def teardown(self, run: Run, everything: bool, say: Say) -> None:
        """Delete the run's deployments; with `everything` also models and files: all that the ledger holds."""

    @abstractmethod
    def client(self, run: Run, endpoint: str | None, base: bool) -> ChatClient:
        """Connect to a deployed model, or to the model before fine-tuning."""


BY_LEDGER = {"exists": "exists, by the ledger", "intended": "may exist: an answer was lost"}  # states nobody asked for


def refuse_folder(config: RunConfig, may_exist: bool) -> None:
    """Raises: ConfigError, where the run's folder is taken; with `may_exist` where it is none of a run of its kind."""
    if may_exist:
        find_begun(config)
    else:
        refuse_existing(config)


def refuse_changes_of(run: Run, changes: Changes) -> None:
    """Raises: ConfigError, where a job that exists would get other settings."""
    if changes:
        raise ConfigError(f"run {run.name!r}: its job has its settings already, expected no others; start a new run")


def say_detached(run: Run, say: Say) -> None:
    """Say how to follow and end a job that runs without this terminal."""
    say(f"the job runs on without this terminal\nfollow it: trainer logs {run.path} --follow")
    say(f"end it:    trainer cancel {run.path}")


def job_facts(run: Run) -> dict[str, object]:
    """The job of a service's run, and its page."""
    status = run.status()
    job, word = status.get("job"), status.get("job_status") or status.get("service_status")
    return {"job": f"{job}, {word}" if job and word else job, "studio": status.get("studio")}


def device_of(run: Run) -> str | None:
    """Device that trained the run; None where its manifest does not say, or is damaged."""
    manifest = readable_manifest(run)
    return None if manifest is None else manifest.device
