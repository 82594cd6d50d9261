"""Plans, quotes and endpoints as documents."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from trainer.cli.documents.data import Finding
from trainer.cli.documents.start import (
    DeployCheck,
    Endpoint,
    Fact,
    LocalPlan,
    Model,
    Quote,
    QuoteItem,
    TrainCheck,
)

if TYPE_CHECKING:
    from trainer.backends import contract
    from trainer.backends import quote as quotes


def train_check(plan: "contract.Plan[Any]", notes: Sequence[str]) -> TrainCheck:
    """What `train --check` found; `notes` were told on the way."""
    backend, bills = plan.config.backend, plan.quote.bills
    return TrainCheck(
        backend=backend.kind,
        plan=None if plan.numbers is None else LocalPlan.model_validate(plan.numbers),
        facts=_facts(plan.rows) if plan.numbers is None else [],
        job=plan.text or None,
        quote=_quote(plan.quote) if bills else None,
        spend_cap=backend.spend_cap if bills else None,
        findings=[Finding.model_validate(finding) for finding in plan.findings],
        notes=list(notes),
    )


def deploy_check(plan: "contract.DeploymentPlan[Any]", spend_cap: float | None) -> DeployCheck:
    """What `trainer deploy --check` found."""
    return DeployCheck(name=plan.name, facts=_facts(plan.rows), quote=_quote(plan.quote), spend_cap=spend_cap)


def endpoint_of(endpoint: "contract.Endpoint", run: str) -> Endpoint:
    """An endpoint of a run."""
    return Endpoint.model_validate({name: getattr(endpoint, name) for name in Endpoint.model_fields} | {"run": run})


def model_of(model: "contract.ServiceModel") -> Model:
    """A model of the service, with its days in ISO 8601."""
    values = {name: getattr(model, name) for name in Model.model_fields}
    days = {name: day.isoformat() for name, day in values.items() if isinstance(day, date)}
    return Model.model_validate(values | days)


def _facts(rows: Sequence[tuple[str, str]]) -> list[Fact]:
    return [Fact(title=title, text=text) for title, text in rows]


def _quote(quote: "quotes.Quote") -> Quote:
    return Quote(
        items=[QuoteItem(what=item.what, amount=item.amount) for item in quote.items],
        total=quote.total,
        currency=quote.currency,
        source=quote.source,
        running=list(quote.running),
        notes=list(quote.notes),
    )
