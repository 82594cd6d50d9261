"""List deployments as the service reports them now, with their cost, and connect to one."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from trainer.backends.azureml.deploy.deployment import progress_of
from trainer.backends.azureml.job import BACKEND
from trainer.backends.azureml.workspace import Place, connect
from trainer.backends.chat_endpoint import Address, ChatEndpoint
from trainer.backends.contract import BY_LEDGER, Endpoint, EndpointKey
from trainer.backends.http import Say, found, patiently
from trainer.errors import BackendError, ConfigError, similar
from trainer.inference.client import ChatClient, ChatMessage, Piece, Sampling, Tool
from trainer.runs import Run
from trainer.runs.ledger import Entry, Ledger, Thing

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

    from trainer.inference.replies import ReplyReader

CHAT_PATH = "/v1/chat/completions"
DEPLOYMENT_HEADER = "azureml-model-deployment"  # asks one deployment, whatever traffic it has


def endpoints(run: Run, say: Say) -> Sequence[Endpoint]:
    """Each deployment of the run. Raises: BackendError."""
    names = _names(run)
    return [_endpoint(connect(Place.of_arm_id(entry.thing.place)), run, name, entry, say) for name, entry in names]


def known_endpoints(run: Run) -> Sequence[Endpoint]:
    """Each deployment of the run, by its ledger."""
    return [_described(run, title, entry, BY_LEDGER[entry.step]) for title, entry in _names(run)]


def _names(run: Run) -> list[tuple[str, Entry]]:
    """The deployments of the run that may exist, by the ledger, each with its name: the shortest that one alone has.

    It is ENDPOINT/DEPLOYMENT, and WORKSPACE/ENDPOINT/DEPLOYMENT where workspaces have one of each.
    """
    entries = Ledger(run.path).open()
    entries = [entry for entry in entries if entry.thing.backend == BACKEND and entry.thing.kind == "deployment"]
    longer = [_longer_names(entry.thing) for entry in entries]
    taken = Counter(name for names in longer for name in names)
    names = [next((name for name in names if taken[name] == 1), names[-1]) for names in longer]
    return list(zip(names, entries, strict=True))


def _longer_names(thing: Thing) -> list[str]:
    place = Place.of_arm_id(thing.place)
    parts = (place.subscription, place.resource_group, place.workspace, thing.key)
    return ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]


def _endpoint(ml: "MLClient", run: Run, title: str, entry: Entry, say: Say) -> Endpoint:
    name, deployment = entry.thing.key.split("/")
    known: Any = found(lambda: ml.online_endpoints.get(name), f"looking for the endpoint {name}", say)
    made: Any = None
    if known is not None:
        made = found(
            lambda: ml.online_deployments.get(deployment, name), f"looking for the deployment {deployment}", say
        )
    if made is None:
        return _described(run, title, entry, "gone")
    state = f"{progress_of(made)}, {known.traffic.get(deployment) or 0} % of the traffic"
    return _described(run, title, entry, state, str(known.scoring_uri))


def _described(run: Run, title: str, entry: Entry, state: str, url: str = "") -> Endpoint:
    model = str(entry.facts.get("model", "")).removeprefix("azureml:")
    return Endpoint(
        title,
        entry.thing,
        run.name,
        state,
        model,
        _cost(entry),
        url=url or str(entry.facts.get("url") or ""),
        made_at=entry.created_at,
        hourly=entry.hourly,
        so_far=entry.cost_so_far(),
        currency=entry.currency,
    )


def _cost(entry: Entry) -> str:
    """Words for the estimate: what the bill says may differ."""
    cost = entry.cost_so_far()
    if cost is None:
        return f"{entry.hours:,.1f} hours at a price that is not known"
    return f"about {cost:,.2f} {entry.currency} in {entry.hours:,.1f} hours"


def client(run: Run, endpoint: str | None, base: bool) -> ChatClient:
    """The run's deployed model, by its endpoint's name, or the model before fine-tuning.

    Raises: ConfigError, when the run has nothing deployed under that name; BackendError.
    """
    entry = _deployed(run, endpoint)
    if base and entry.facts.get("mode") != "vllm":
        return NoBase(entry.thing.key, run)
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

    def __init__(self, deployment: str, run: Run) -> None:
        self.name, self.run = f"the base of {deployment}", run

    def stream(
        self, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool] = ()
    ) -> Iterator[Piece]:
        """Raises: ConfigError."""
        raise ConfigError(
            f"{self.name}: is not deployed, the scoring script has the tuned model only; "
            f"compare them here with: trainer chat {self.run.path} --compare, or deploy it with vLLM"
        )


def _deployed(run: Run, endpoint: str | None) -> Entry:
    """The newest deployment of the run that may exist, at the endpoint if one is named.

    Raises: ConfigError, also where workspaces have an endpoint of that name each.
    """
    named = _names(run)
    names = [entry.thing.key.partition("/")[0] for _, entry in named]
    chosen = [
        entry
        for (title, entry), name in zip(named, names, strict=True)
        if endpoint in (None, name, title, entry.thing.key)
    ]
    if endpoint is not None and len({entry.thing.place for entry in chosen}) > 1:
        titles = " or ".join(title for title, entry in named if entry in chosen)
        raise ConfigError(f"--endpoint: {endpoint!r} is in several workspaces, expected {titles}; name one of them")
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
    """With the key, or a token of Entra's, as of now."""
    key = _read_key(ml, endpoint)
    return {"Authorization": f"Bearer {key.value}", DEPLOYMENT_HEADER: deployment}


def key_of(deployment: Thing) -> EndpointKey:
    """The key, or a token of Entra's, as of now. Raises: ConfigError, BackendError."""
    return _read_key(connect(Place.of_arm_id(deployment.place)), deployment.key.partition("/")[0])


def _read_key(ml: "MLClient", endpoint: str) -> EndpointKey:
    secrets: Any = patiently(lambda: ml.online_endpoints.get_keys(endpoint), f"reading the keys of {endpoint!r}")
    if key := getattr(secrets, "primary_key", None):
        return EndpointKey(str(key), f"the primary key of {endpoint}")
    token = getattr(secrets, "access_token", None)
    if not token:
        raise BackendError(
            f"the endpoint {endpoint}: gave no key, expected one; look at its authentication in the studio"
        )
    return EndpointKey(str(token), f"a token of Microsoft Entra for {endpoint}, which expires")


def _reader(run: Run) -> "ReplyReader":
    from trainer.data.render.rendering import Renderer
    from trainer.inference.replies import ReplyReader
    from trainer.inference.trained import trained_tokenizer

    return ReplyReader(Renderer(trained_tokenizer(run)))
