"""The verbs of a backend whose runs execute elsewhere. Commands know no others, and no backend by its name.

The run's folder is here as for every run: the backend writes into it what the service says, in the same files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

from trainer.backends.http import Say
from trainer.backends.quote import Quote
from trainer.certificates import check_certificates
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError
from trainer.inference.client import ChatClient
from trainer.runs import Run
from trainer.runs.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that has been checked, its price, and what a person should see before it starts."""

    config: RunConfig  # without `auto`
    quote: Quote
    rows: Sequence[tuple[str, str]]  # title and text of each line
    text: str = ""  # shown by --check below the rows: the job as it will be submitted
    details: Any = None  # what `launch` needs and the backend alone understands


@dataclass(frozen=True, slots=True)
class DeploymentPlan:
    """A deployment that has been checked and not made."""

    name: str
    quote: Quote
    rows: Sequence[tuple[str, str]]
    details: Any = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Something deployed, as the service reports it now."""

    name: str
    run: str  # the run's name, or empty
    state: str
    model: str
    cost: str = ""  # so far, or by the hour
    until: str = ""  # when the service deletes it by itself
    url: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the service. `can_tune` is None where the service does not say."""

    name: str
    can_tune: bool | None
    tuning_until: date | None  # when new jobs end
    inference_until: date | None
    lifecycle: str
    is_own: bool  # made by fine-tuning


class RemoteBackend(Protocol):
    """Each verb raises ConfigError for a mistake of the user and BackendError where the service refuses or fails."""

    def check(self, config: RunConfig, say: Say) -> Plan:
        """Everything that can be verified without creating anything, all findings at once."""
        ...

    def models(self, config: RunConfig, every: bool, say: Say) -> Sequence[Model]:
        """What the service can tune, or with `every` all that it lists; who can use it is said."""
        ...

    def launch(self, plan: Plan, run: Run, say: Say) -> None:
        """Create the job. Called again for the same run it finds what exists and goes on from there."""
        ...

    def follow(self, run: Run, say: Say) -> Outcome:
        """Bring the run's files up to date until it ends, and then its result. Ctrl-C leaves the job running."""
        ...

    def refresh(self, run: Run, say: Say) -> None:
        """Bring the run's files up to date once."""
        ...

    def pause(self, run: Run, say: Say) -> None: ...

    def resume(self, run: Run, say: Say) -> None:
        """Go on: with a launch that was interrupted, a job that is paused, or one that was pre-empted."""
        ...

    def cancel(self, run: Run, say: Say) -> None: ...

    def delete(self, run: Run, say: Say) -> None:
        """Remove what the run left at the service, before its folder is deleted."""
        ...

    def register(self, run: Run, settings: RunConfig, name: str | None, say: Say) -> str:
        """Keep the run's adapter as a model of the service; its name and version."""
        ...

    def plan_deployment(self, run: Run, settings: RunConfig, options: "DeploymentOptions", say: Say) -> DeploymentPlan:
        """Everything about a deployment that can be verified without making it; `settings` say where it goes."""
        ...

    def deploy(self, plan: DeploymentPlan, run: Run, say: Say) -> Endpoint: ...

    def endpoints(self, run: Run, say: Say) -> Sequence[Endpoint]: ...

    def teardown(self, run: Run, everything: bool, say: Say) -> None:
        """Delete the run's deployments; with `everything` also models and files: all that the ledger holds."""
        ...

    def client(self, run: Run, endpoint: str | None, base: bool) -> ChatClient:
        """A deployed model to talk to, or the model before fine-tuning."""
        ...


@dataclass(frozen=True, slots=True)
class DeploymentOptions:
    """What `trainer deploy` was told; None where the backend decides. What a backend cannot honour it refuses."""

    name: str | None = None
    checkpoint: str | None = None
    sku: str | None = None
    capacity: int | None = None
    mode: str | None = None
    instance_type: str | None = None
    instance_count: int | None = None


def remote_backend(kind: str) -> RemoteBackend:
    """The backend of a kind. Raises: ConfigError for `local`, which is none; MissingDependency."""
    check_certificates()
    match kind:
        case "azureml":
            from trainer.backends.azureml.backend import AzureML

            return AzureML()
        case "openai":
            from trainer.backends.openai.backend import OpenAIService

            return OpenAIService()
    raise ConfigError(f"backend.kind: is {kind!r}, expected 'azureml' or 'openai', whose runs execute elsewhere")
