"""List deployments as the service reports them now, with their cost, and connect to one."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from trainer.backends.azureml.deploy.deployment import progress_of
from trainer.backends.azureml.job import BACKEND
from trainer.backends.azureml.workspace import Place, connect, found
from trainer.backends.chat_endpoint import Address, ChatEndpoint
from trainer.backends.contract import Endpoint
from trainer.backends.http import Say, patiently
from trainer.errors import BackendError, ConfigError, similar
from trainer.inference.client import ChatClient, ChatMessage, Sampling, Tool
from trainer.inference.tool_calls import Call
from trainer.runs import Run
from trainer.runs.ledger import Entry, Ledger

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

    from trainer.inference.replies import ReplyReader

CHAT_PATH = "/v1/chat/completions"
DEPLOYMENT_HEADER = "azureml-model-deployment"  # asks one deployment, whatever traffic it has


def endpoints(run: Run, say: Say) -> Sequence[Endpoint]:
    """Each deployment of the run. Raises: BackendError."""
    return [_endpoint(connect(Place.of_arm_id(entry.thing.place)), run, entry, say) for entry in _deployments(run)]


def _deployments(run: Run) -> list[Entry]:
    """The deployments of the run that may exist, by the ledger."""
    entries = Ledger(run.path).open()
    return [entry for entry in entries if entry.thing.backend == BACKEND and entry.thing.kind == "deployment"]


def _endpoint(ml: "MLClient", run: Run, entry: Entry, say: Say) -> Endpoint:
    name, deployment = entry.thing.key.split("/")
    known: Any = found(lambda: ml.online_endpoints.get(name), f"looking for the endpoint {name}", say)
    made: Any = None
    if known is not None:
        made = found(
            lambda: ml.online_deployments.get(deployment, name), f"looking for the deployment {deployment}", say
        )
    model = str(entry.facts.get("model", "")).removeprefix("azureml:")
    if made is None:
        return Endpoint(entry.thing.key, run.name, "gone", model, cost_so_far(entry))
    state = f"{progress_of(made)}, {known.traffic.get(deployment) or 0} % of the traffic"
    return Endpoint(entry.thing.key, run.name, state, model, cost_so_far(entry), "", str(known.scoring_uri))


def cost_so_far(entry: Entry, now: datetime | None = None) -> str:
    """Hours since it was asked for, times the price that was quoted: what the bill says may differ."""
    begun = datetime.fromisoformat(entry.created_at)
    hours = ((now or datetime.now(UTC)) - begun).total_seconds() / 3600
    hourly = entry.facts.get("hourly")
    if hourly is None:
        return f"{hours:,.1f} hours at a price that is not known"
    return f"about {hours * float(hourly):,.2f} {entry.facts.get('currency', 'USD')} in {hours:,.1f} hours"


def client(run: Run, endpoint: str | None, base: bool) -> ChatClient:
    """The run's deployed model, by its endpoint's name, or the model before fine-tuning.

    Raises: ConfigError, when the run has nothing deployed under that name; BackendError.
    """
    entry = _deployed(run, endpoint)
    if base and entry.facts.get("mode") != "vllm":
        return NoBase(entry.thing.key)
    name, deployment = entry.thing.key.split("/")
    model = run.manifest().base.name if base else None
    return chat_endpoint(connect(Place.of_arm_id(entry.thing.place)), run, name, deployment, model)


def chat_endpoint(ml: "MLClient", run: Run, endpoint: str, deployment: str, model: str | None = None) -> ChatEndpoint:
    """One deployment as a ChatClient; `model`: another one of those that it serves than the run's."""
    known = patiently(lambda: ml.online_endpoints.get(endpoint), f"reading the endpoint {endpoint!r}")
    made = patiently(lambda: ml.online_deployments.get(deployment, endpoint), f"reading the deployment {deployment!r}")
    is_vllm = (made.tags or {}).get("mode") == "vllm"
    url = urljoin(str(known.scoring_uri), CHAT_PATH) if is_vllm else str(known.scoring_uri)
    if not url.startswith("https://"):
        raise BackendError(
            f"the endpoint {endpoint}: its address is {url!r}, expected https; its key is not sent there"
        )
    address = Address(url, model or run.name, lambda: _headers(ml, endpoint, deployment), streams=is_vllm)
    return ChatEndpoint(f"{endpoint}/{deployment}", address, (lambda: _reader(run)) if is_vllm else None)


class NoBase:
    """In place of the base where only the tuned model is deployed."""

    def __init__(self, deployment: str) -> None:
        self.name = f"the base of {deployment}"

    def stream(
        self, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool] = ()
    ) -> Iterator[str | Call]:
        """Raises: ConfigError."""
        raise ConfigError(
            f"{self.name}: is not deployed, the scoring script has the tuned model only; "
            "compare them here with: trainer chat RUN --compare, or deploy with --mode vllm"
        )


def _deployed(run: Run, endpoint: str | None) -> Entry:
    """The newest deployment of the run that may exist, at the endpoint if one is named."""
    entries = _deployments(run)
    names = [entry.thing.key.partition("/")[0] for entry in entries]
    chosen = [entry for entry, name in zip(entries, names, strict=True) if endpoint in (None, name, entry.thing.key)]
    if not chosen:
        there = f", its endpoints are {', '.join(sorted(set(names)))}" if names else ""
        hint = similar(endpoint, names) if endpoint else ""
        raise ConfigError(
            f"run {run.name!r}: is not deployed at {endpoint or 'an endpoint'}{there}{hint}; "
            f"deploy it with: trainer deploy {run.path}"
        )
    with_traffic = [entry for entry in chosen if entry.facts.get("traffic")]
    return (with_traffic or chosen)[-1]


def _headers(ml: "MLClient", endpoint: str, deployment: str) -> Mapping[str, str]:
    """The key, or a token of Entra's, as of now."""
    secrets: Any = patiently(lambda: ml.online_endpoints.get_keys(endpoint), f"reading the keys of {endpoint!r}")
    secret = getattr(secrets, "primary_key", None) or getattr(secrets, "access_token", None)
    if not secret:
        raise BackendError(
            f"the endpoint {endpoint}: gave no key, expected one; look at its authentication in the studio"
        )
    return {"Authorization": f"Bearer {secret}", DEPLOYMENT_HEADER: deployment}


def _reader(run: Run) -> "ReplyReader":
    from trainer.data.render.rendering import Renderer
    from trainer.inference.replies import ReplyReader
    from trainer.inference.trained import trained_tokenizer

    return ReplyReader(Renderer(trained_tokenizer(run)))
