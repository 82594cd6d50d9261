"""What every backend can do with a run, and what a service can do with its model. Commands know no others.

The run's folder is here for every run: the backend writes into it what happens elsewhere, in the same files.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from rich.console import Console

from trainer.backends.http import Say
from trainer.backends.quote import Quote
from trainer.config.schema import RunConfig
from trainer.data.render.overlength import Touched
from trainer.data.rules.findings import Finding
from trainer.errors import ConfigError
from trainer.inference.client import ChatClient
from trainer.runs import Run, create_run, find_or_adopt, refuse_existing
from trainer.runs.damage import readable_manifest
from trainer.runs.ledger import Ledger
from trainer.runs.lifecycle import further
from trainer.runs.run import Outcome

if TYPE_CHECKING:
    from trainer.data.render.rendering import Renderer
    from trainer.training.dataset import TrainingData

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Screen:
    """Where a backend that works in this process shows its progress, and what is shown while libraries load."""

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
    """What a run on this machine will compute: its model, its data and every resolved number."""

    base: str
    revision: str | None
    dtype: str
    quantization: str
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


@dataclass(frozen=True, slots=True)
class DeploymentPlan(Generic[T]):
    """A checked deployment that does not exist yet."""

    name: str
    quote: Quote
    rows: Sequence[tuple[str, str]]
    details: T


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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A deployment, as the service reports it now."""

    name: str
    run: str  # the run's name, or empty
    state: str
    model: str
    cost: str = ""  # so far, or by the hour
    until: str = ""  # when the service deletes it by itself
    url: str = ""


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """A model of the service. `can_tune` is None where the service does not say."""

    name: str
    can_tune: bool | None
    tuning_until: date | None  # when new jobs end
    inference_until: date | None
    lifecycle: str
    is_own: bool  # made by fine-tuning


class Backend(ABC, Generic[T]):
    """A place where runs execute. Verbs raise ConfigError for the user's mistakes, BackendError for the service's."""

    where: ClassVar[str]  # its runs execute, in words
    has_preview: ClassVar[bool] = False  # whether it renders rows with the tokenizer that trains them
    keeps_adapter: ClassVar[bool] = True  # whether the run's adapter comes here, so that it can be loaded here
    poll_seconds: ClassVar[float] = 5.0  # between two looks at a run; a service is asked less often than a file

    def refuse_at_once(self, config: RunConfig, may_exist: bool, detach: bool) -> None:
        """Refuse what cannot be right, as far as it can be known before anything is loaded or asked."""
        if not may_exist:
            refuse_existing(config)

    def in_processes(self, arguments: Sequence[str], say: Say) -> int | None:
        """Run this command in several processes instead; their exit code, or None where this one is enough."""
        return None

    def existing(self, config: RunConfig) -> Run | None:
        """The run that --auto-resume resumes without another check."""
        return find_or_adopt(config)

    @abstractmethod
    def check(self, config: RunConfig, say: Say, may_exist: bool = False) -> Plan[T]:
        """Verify everything that can be verified without creating anything; report all findings at once."""

    def preview(self, plan: Plan[T]) -> Preview:
        """Rows as they are trained, where the backend `has_preview`."""
        raise ConfigError("--preview: is for backend.kind=local, expected none; add backend.kind=local to look")

    def create(self, plan: Plan[T], may_exist: bool) -> Run:
        """Make the run's folder, or with `may_exist` take the one that is there."""
        return create_run(plan.config)

    @abstractmethod
    def launch(self, plan: Plan[T], run: Run, say: Say, changes: Changes = UNCHANGED) -> None:
        """Start the run. Called again for the same run it finds what exists and resumes there."""

    @abstractmethod
    def follow(self, run: Run, say: Say) -> Outcome:
        """Keep the run's files up to date until it ends, and then fetch its result."""

    @abstractmethod
    def detach(self, run: Run, say: Say) -> None:
        """Leave the launched run to itself, and say how to follow and end it."""

    @abstractmethod
    def refresh(self, run: Run, say: Say) -> None:
        """Bring the run's files up to date once."""

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

    def facts(self, run: Run) -> Mapping[str, object]:
        """What matters first of a run, in the order in which it is shown; None where a fact is not known."""
        adapter = run.adapter if (run.adapter / "adapter_model.safetensors").is_file() else None
        return {"adapter": adapter or f"none so far; {further(run)}"}

    def after_interrupt(self, run: Run) -> str:
        """What Ctrl-C left behind, and what to do about it."""
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
    def teardown(self, run: Run, everything: bool, say: Say) -> None:
        """Delete the run's deployments; with `everything` also models and files: all that the ledger holds."""

    @abstractmethod
    def client(self, run: Run, endpoint: str | None, base: bool) -> ChatClient:
        """Connect to a deployed model, or to the model before fine-tuning."""


def refuse_changes_of(run: Run, changes: Changes) -> None:
    """Raises: ConfigError, where a job that exists would get other settings."""
    if changes:
        raise ConfigError(f"run {run.name!r}: its job has its settings already, expected no others; start a new run")


def say_detached(run: Run, say: Say) -> None:
    """How to follow and end a job that runs without this terminal."""
    say(f"the job runs on without this terminal\nfollow it: trainer logs {run.path} --follow")
    say(f"end it:    trainer cancel {run.path}")


def job_facts(run: Run) -> dict[str, object]:
    """The job of a service's run, and its page."""
    status = run.status()
    job, word = status.get("job"), status.get("job_status") or status.get("service_status")
    return {"job": f"{job}, {word}" if job and word else job, "studio": status.get("studio")}


def device_of(run: Run) -> str | None:
    """Where the run was trained; None where its manifest does not tell, or is damaged."""
    manifest = readable_manifest(run)
    return None if manifest is None else manifest.device
