"""What of a run is deployed, as the service sees it now, and what it has cost."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from trainer.backends.azureml.deploy.service import found, place_of, progress_of
from trainer.backends.azureml.record import BACKEND
from trainer.backends.azureml.workspace import connect
from trainer.backends.http import Say
from trainer.backends.remote import Endpoint
from trainer.runs import Run
from trainer.runs.ledger import Entry, Ledger

if TYPE_CHECKING:
    from azure.ai.ml import MLClient


def endpoints(run: Run, say: Say) -> Sequence[Endpoint]:
    """Each deployment of the run. Raises: BackendError."""
    entries = [entry for entry in Ledger(run.path).open() if _is_deployment(entry)]
    return [_endpoint(connect(place_of(entry.thing)), run, entry, say) for entry in entries]


def _is_deployment(entry: Entry) -> bool:
    return entry.thing.backend == BACKEND and entry.thing.kind == "deployment"


def _endpoint(ml: "MLClient", run: Run, entry: Entry, say: Say) -> Endpoint:
    name, deployment = entry.thing.key.split("/")
    known: Any = found(lambda: ml.online_endpoints.get(name), f"the endpoint {name}", say)
    made: Any = None
    if known is not None:
        made = found(lambda: ml.online_deployments.get(deployment, name), f"the deployment {deployment}", say)
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
