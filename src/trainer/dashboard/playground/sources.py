"""Places where a run's model answers: this machine, or what is deployed; and the calls that reach it there."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from trainer.backends.choose import choose, choose_service
from trainer.backends.contract import Endpoint
from trainer.dashboard.playground.code import Target
from trainer.dashboard.playground.local_model import LocalModels
from trainer.errors import ConfigError, TrainerError
from trainer.inference.client import ChatClient
from trainer.runs import Run
from trainer.runs.ledger import Ledger

LOCAL, SERVICE, DEPLOYED = "local", "service", "endpoint:"
ROUTE = "/chat/completions"


@dataclass(frozen=True, slots=True)
class AnswerPlace:
    """A place that answers; `value` is its word in forms."""

    value: str
    title: str


@dataclass(frozen=True, slots=True)
class AnswerPlaces:
    """The places of a run, and the reasons why there are no others."""

    found: tuple[AnswerPlace, ...]
    notes: tuple[str, ...]


def sources_of(run: Run) -> AnswerPlaces:
    """Every place where the run's model answers, without asking a service."""
    found, notes = list[AnswerPlace](), list[str]()
    try:
        if choose(run.backend, asks=False).keeps_adapter:
            from trainer.inference.trained import trained_adapter

            trained_adapter(run)
            found.append(AnswerPlace(LOCAL, "this machine"))
        elif (service := run.config().openai.service) != "azure":
            found.append(AnswerPlace(SERVICE, "the service, by the token" if service == "openai" else "the server"))
    except TrainerError as error:
        notes.append(str(error))
    try:
        found += [
            AnswerPlace(DEPLOYED + endpoint.name, f"deployment {endpoint.name}") for endpoint in known_endpoints(run)
        ]
    except TrainerError as error:
        notes.append(str(error))
    if not found and not notes:
        notes.append(f"run {run.name!r}: its model is not deployed, expected a deployment to talk to; make one")
    return AnswerPlaces(tuple(found), tuple(notes))


def known_endpoints(run: Run) -> Sequence[Endpoint]:
    """Deployments of the run, by its ledger. Raises: TrainerError."""
    kinds = {entry.thing.backend for entry in Ledger(run.path).open() if entry.thing.kind == "deployment"}
    services = [service for kind in sorted(kinds) if (service := choose_service(kind)) is not None]
    return [endpoint for service in services for endpoint in service.known_endpoints(run)]


def find_endpoint(run: Run, name: str) -> Endpoint | None:
    """The newest deployment of the run under that name, by its ledger."""
    return next((found for found in reversed(known_endpoints(run)) if found.name == name), None)


def client_of(run: Run, source: str, base: bool, models: LocalModels) -> ChatClient:
    """The tuned model of a place, or the one before fine-tuning. Raises: TrainerError."""
    if source == LOCAL:
        return models.client(run, base)
    endpoint = None if source == SERVICE else source.removeprefix(DEPLOYED)
    known = None if endpoint is None else find_endpoint(run, endpoint)
    service = choose_service(run.backend if known is None else known.thing.backend)
    if service is None:
        raise ConfigError(f"run {run.name!r}: has nothing deployed as {endpoint!r}; choose another place to ask")
    return service.client(run, endpoint, base)


def target_of(run: Run, source: str) -> Target:
    """The address that calls of a place go to, as far as it is known without asking. Raises: TrainerError."""
    if source == LOCAL:
        return Target("http://127.0.0.1:8000/v1", run.name, "TRAINER_API_KEY", f"trainer serve {run.path}")
    if source == SERVICE:
        model = str(run.status().get("fine_tuned_model"))
        return Target("https://api.openai.com/v1", model, "OPENAI_API_KEY", limit="max_completion_tokens")
    name = source.removeprefix(DEPLOYED)
    known = find_endpoint(run, name)
    if known is not None and known.url.endswith(ROUTE):
        base_url = known.url.removesuffix(ROUTE)
        return Target(base_url, known.thing.key, "AZURE_OPENAI_API_KEY", limit="max_completion_tokens")
    endpoint, _, _ = (name if known is None else known.thing.key).partition("/")
    host = urlsplit(known.url).netloc if known is not None else ""
    address = f"https://{host or f'{endpoint}.REGION.inference.ml.azure.com'}"
    before = "" if host else f"trainer endpoints {run.path}"
    entry = None if known is None else Ledger(run.path).find(*known.thing.identity)
    if entry is not None and entry.facts.get("mode") == "vllm":
        return Target(f"{address}/v1", run.name, "ENDPOINT_KEY", before)
    return Target(f"{address}/score", run.name, "ENDPOINT_KEY", before, path="")
