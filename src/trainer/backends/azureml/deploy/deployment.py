"""An endpoint and a deployment as Azure ML knows them: names, entries of the ledger, bodies, states and logs."""

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.backends.azureml.job import BACKEND
from trainer.backends.azureml.workspace import Place, polling_seconds, word_of
from trainer.backends.http import Say, failure_of, is_failure, patiently
from trainer.config.azureml import DeploymentConfig
from trainer.errors import BackendError, ConfigError
from trainer.runs import Run
from trainer.runs.ledger import Thing

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import ManagedOnlineDeployment, ManagedOnlineEndpoint, OnlineRequestSettings

LONGEST_NAME = 32  # of an endpoint and of a deployment, as of 3 characters
ENDPOINT_NAME = re.compile(r"[A-Za-z](?=.{2,31}$)[A-Za-z0-9-]*[A-Za-z0-9]")
DIGEST_CHARS = 12
SCRIPT = "score.py"
HUB_CACHE = "/tmp/huggingface"  # noqa: S108  # a container's own disk: nobody else writes there, and home may be read-only
ANSWER_MS = 180_000  # the most that Azure ML takes; its default of 5,000 cuts long answers off
ANSWER_SECONDS = 170  # of the scoring script, which must give up before the endpoint does
LOADING_SECONDS = 600  # before a container that does not answer yet counts as dead: the base is loaded
MADE_BY = "azure-llm-trainer"
ENDED = ("Succeeded", "Failed", "Canceled")
LONGEST_HOURS = 3.0  # an image is built, a machine is found, a model is loaded
LOG_LINES = 60
SHOWN_LINES = 8
CONTAINERS = ("inference-server", "storage-initializer")


@dataclass(frozen=True, slots=True)
class DeploymentTarget:
    """The endpoint, machine and settings of a deployment: a change of any makes it another deployment."""

    place: Place
    endpoint: str
    deployment: str
    settings: DeploymentConfig  # with mode, machine and their number as they were decided on
    num_gpus: int | None  # of one machine; None where nobody says it
    price: float | None  # of one machine and hour
    currency: str
    price_source: str

    @property
    def instance_type(self) -> str:
        assert self.settings.instance_type is not None
        return self.settings.instance_type

    @property
    def hourly(self) -> float | None:
        """Price of all machines per hour."""
        return None if self.price is None else self.price * self.settings.instance_count

    @property
    def machines(self) -> str:
        return f"{self.settings.instance_count} x {self.instance_type}"

    def delete_deployment(self) -> str:
        return delete_deployment(self.place, self.endpoint, self.deployment)

    def endpoint_thing(self) -> Thing:
        """It costs nothing itself."""
        remove = f"az ml online-endpoint delete -n {self.endpoint} {self.place.options} --yes"
        return Thing(BACKEND, "endpoint", self.endpoint, self.place.arm_id, "", remove)

    def deployment_thing(self, run: Run) -> Thing:
        """It is deleted by a command that takes its traffic away first: Azure refuses to delete what has some."""
        price = "a price that is not known" if self.hourly is None else f"{self.hourly:,.2f} {self.currency}"
        bills = f"{price} an hour for {self.machines}, with or without traffic, until it is deleted"
        key = f"{self.endpoint}/{self.deployment}"
        return Thing(BACKEND, "deployment", key, self.place.arm_id, bills, f"trainer teardown {run.path}")


def delete_deployment(place: Place, endpoint: str, deployment: str) -> str:
    """The command that deletes a deployment without traffic."""
    return f"az ml online-deployment delete -e {endpoint} -n {deployment} {place.options} --yes"


def shift_traffic(place: Place, endpoint: str, deployment: str) -> str:
    """The command that gives a deployment all requests."""
    return f'az ml online-endpoint update -n {endpoint} --traffic "{deployment}=100" {place.options}'


def endpoint_name(run: Run, workspace_id: str, name: str | None) -> str:
    """The endpoint's name, which no other may have in the whole region. Raises: ConfigError."""
    if name is None:
        salt = f"{workspace_id} {run.name} {run.status().get('created_at')}"
        return f"{_stem(run.name, 23)}-{hashlib.sha256(salt.encode()).hexdigest()[:8]}"
    if not ENDPOINT_NAME.fullmatch(name):
        raise ConfigError(
            f"--name: is {name!r}, expected 3 to {LONGEST_NAME} letters, digits and '-' for an endpoint, a letter "
            "first and no '-' last; choose another"
        )
    return name


def deployment_name(mode: str, *parts: object) -> str:
    """Of everything that makes this deployment another one: a changed model or machine gets a name of its own."""
    return f"{mode}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:DIGEST_CHARS]}"


def _stem(name: str, length: int) -> str:
    letters = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (letters if letters[:1].isalpha() else f"run-{letters}")[:length].strip("-")


def endpoint_entity(target: DeploymentTarget, run: Run) -> "ManagedOnlineEndpoint":
    """An endpoint without traffic yet."""
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    auth = {"key": "key", "entra": "aad_token"}[target.settings.auth]
    return ManagedOnlineEndpoint(name=target.endpoint, auth_mode=auth, tags={"made_by": MADE_BY, "run": run.name[:250]})


def deployment_entity(
    target: DeploymentTarget, run: Run, model: str, environment: str, code: Path, vault: dict[str, str]
) -> "ManagedOnlineDeployment":
    """A deployment with room and time for a language model."""
    from azure.ai.ml.entities import CodeConfiguration, ManagedOnlineDeployment, ProbeSettings

    settings = target.settings
    scripted = settings.mode == "score"
    return ManagedOnlineDeployment(
        name=target.deployment,
        endpoint_name=target.endpoint,
        model=model,
        environment=environment,
        code_configuration=CodeConfiguration(code=str(code), scoring_script=SCRIPT) if scripted else None,
        environment_variables=(_score_variables(target) if scripted else _vllm_variables(target)) | vault,
        instance_type=target.instance_type,
        instance_count=settings.instance_count,
        request_settings=_requests(target),
        liveness_probe=ProbeSettings(initial_delay=LOADING_SECONDS, period=30, timeout=10, failure_threshold=30),
        readiness_probe=ProbeSettings(initial_delay=10, period=10, timeout=10, failure_threshold=30),
        egress_public_network_access="enabled" if settings.egress else "disabled",
        tags={"made_by": MADE_BY, "run": run.name[:250], "model": model, "mode": settings.mode},
    )


def _requests(target: DeploymentTarget) -> "OnlineRequestSettings":
    from azure.ai.ml.entities import OnlineRequestSettings

    at_a_time = 1 if target.settings.mode == "score" else target.settings.max_requests
    return OnlineRequestSettings(request_timeout_ms=ANSWER_MS, max_concurrent_requests_per_instance=at_a_time)


def _score_variables(target: DeploymentTarget) -> dict[str, str]:
    return {
        "TRAINER_MAX_TOKENS": str(target.settings.max_tokens),
        "TRAINER_MAX_SECONDS": str(ANSWER_SECONDS),
        "WORKER_COUNT": "1",  # each would load the model once more
        "HF_HOME": HUB_CACHE,
    } | _expected_gpus(target)


def _expected_gpus(target: DeploymentTarget) -> dict[str, str]:
    """The number that the container compares its machine with before it loads a model."""
    return {} if target.num_gpus is None else {"TRAINER_EXPECTED_GPUS": str(target.num_gpus)}


def _vllm_variables(target: DeploymentTarget) -> dict[str, str]:
    settings = target.settings
    given = {
        "TRAINER_MAX_REQUESTS": str(settings.max_requests),
        "TRAINER_GPUS": str(target.num_gpus or 1),
        "HF_HOME": HUB_CACHE,
        "VLLM_NO_USAGE_STATS": "1",
    } | _expected_gpus(target)
    if settings.max_length is not None:
        given["TRAINER_MAX_LENGTH"] = str(settings.max_length)
    if settings.tool_parser is not None:
        given["TRAINER_TOOL_PARSER"] = settings.tool_parser
    return given


def wait_until_ended(read: Callable[[], Any], what: str, say: Say) -> str:
    """The state in which a long operation has ended. Raises: BackendError, when it does not end."""
    until, shown = time.monotonic() + LONGEST_HOURS * 3600, ""
    while True:
        state = progress_of(patiently(read, f"reading {what}", say))
        if state in ENDED:
            return state
        if state != shown:
            say(f"{what} is {state}")
            shown = state
        if time.monotonic() > until:
            raise BackendError(
                f"{what}: is {state} after {LONGEST_HOURS:.0f} hours, expected it to end; look in the studio"
            )
        time.sleep(polling_seconds())


def progress_of(thing: Any) -> str:
    """State of an endpoint or a deployment; one without a state yet is about to change."""
    return word_of(thing.provisioning_state or "Updating")


def container_logs(ml: "MLClient", endpoint: str, deployment: str) -> list[str]:
    """The last lines of each container, under its name; why they cannot be read, where they cannot."""
    shown = []
    for container in CONTAINERS:
        try:
            text = ml.online_deployments.get_logs(deployment, endpoint, LOG_LINES, container_type=container)
        except Exception as error:
            if not is_failure(error):
                raise
            shown.append(f"log of {container}: cannot be read: {failure_of(error)}")
            continue
        lines = [line for line in text.splitlines() if line.strip()][-LOG_LINES:]
        shown += [f"log of {container}:", *(f"  {line}" for line in lines)] if lines else []
    return shown


def last_lines(logs: Sequence[str]) -> list[str]:
    """Of each log its heading and its end, where the reason stands."""
    shown, lines = list[str](), list[str]()
    for line in [*logs, ""]:
        if line.startswith("  "):
            lines.append(line)
            continue
        shown += [*lines[-SHOWN_LINES:], *([line] if line else [])]
        lines = []
    return shown
