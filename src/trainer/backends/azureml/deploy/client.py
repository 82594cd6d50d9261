"""Talking to what is deployed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from trainer.backends.azureml.deploy.service import place_of
from trainer.backends.azureml.record import BACKEND
from trainer.backends.azureml.workspace import connect
from trainer.backends.chat_endpoint import Address, ChatEndpoint
from trainer.backends.http import patiently
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


def client(run: Run, endpoint: str | None, base: bool) -> ChatClient:
    """The run's deployed model, by its endpoint's name, or the model before fine-tuning.

    Raises: ConfigError, when the run has nothing deployed under that name; BackendError.
    """
    entry = _deployed(run, endpoint)
    if base and entry.facts.get("mode") != "vllm":
        return NoBase(entry.thing.key)
    name, deployment = entry.thing.key.split("/")
    model = run.manifest().base.name if base else None
    return chat_endpoint(connect(place_of(entry.thing)), run, name, deployment, model)


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
    entries = [
        entry
        for entry in Ledger(run.path).open()
        if entry.thing.backend == BACKEND and entry.thing.kind == "deployment"
    ]
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
