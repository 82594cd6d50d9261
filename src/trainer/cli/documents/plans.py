"""The documents of plans, quotes, endpoints and models, and how they are made."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from trainer.cli.documents.data import Finding
from trainer.cli.documents.document import Document, Part
from trainer.cli.documents.runs import Thing
from trainer.kinds import Kind

if TYPE_CHECKING:
    from trainer.backends import contract
    from trainer.backends import quote as quotes


class QuoteItem(Part):
    """One line of a quote."""

    what: str
    """What is paid for."""
    amount: float | None
    """Its price; null where none is known, which is never guessed."""


class Quote(Part):
    """What something will cost."""

    items: list[QuoteItem]
    """What is paid once; empty where everything is free, or bills by the hour."""
    total: float | None
    """Their sum; null where a price is missing."""
    currency: str
    """Of all amounts."""
    source: str
    """Where the prices come from, and when."""
    running: list[str]
    """What goes on billing until it is deleted, each in a sentence."""
    notes: list[str]
    """What the figures leave out."""


class Fact(Part):
    """A line of a plan, for people."""

    title: str
    """What it is about."""
    text: str
    """What is so."""


class TooLong(Part):
    """A row over data.max_length."""

    place: str
    """FILE:LINE."""
    num_tokens: int
    """Its tokens."""
    outcome: str
    """What became of it, as data.on_overlength says."""


class LocalPlan(Part):
    """A run on this machine, in numbers; nothing is `auto` any more."""

    base: str
    """The model that is tuned."""
    revision: str | None
    """Its commit at the model hub."""
    dtype: str
    """The number format that is computed in."""
    quantization: str
    """How the base's weights are held, or none."""
    device: str
    """What computes."""
    rows_trained: int
    """Rows to train on."""
    rows_held_out: int
    """Rows to validate on."""
    num_tokens: int
    """Tokens of the rows to train on."""
    num_supervised_tokens: int
    """Those that enter the loss."""
    longest_row: int
    """Tokens of the longest row."""
    n_epochs: int
    """Epochs."""
    batch_size: int
    """Conversations a step."""
    steps_per_epoch: int
    """Steps of an epoch."""
    total_steps: int
    """Steps in all."""
    learning_rate: float
    """The highest one."""
    seed: int
    """What order and adapter begin from."""
    max_length: int
    """The longest row that is accepted, in tokens."""
    token_budget: int
    """Tokens computed at a time."""
    recompute_layers: int
    """Layers recomputed in the backward pass to save memory."""
    peak_memory_bytes: int
    """What training will take of the device, estimated."""
    free_memory_bytes: int
    """What is free there, or memory.limit_gb."""
    too_long: list[TooLong]
    """Rows over max_length."""


class TrainCheck(Document):
    """`train --check`: everything is in order, and nothing was created. What is wrong is an error, and no document."""

    document: Literal["train --check"] = "train --check"
    """The command."""
    backend: Kind
    """Where the run would execute."""
    plan: LocalPlan | None
    """The run in numbers; null where another machine executes it."""
    facts: list[Fact]
    """What is about to happen there; empty for this machine."""
    job: str | None
    """The job as it would be submitted, where the service takes one as text."""
    quote: Quote | None
    """What it would cost; null on this machine, where nothing bills."""
    spend_cap: float | None
    """backend.spend_cap, which the quote does not exceed; null where there is none."""
    findings: list[Finding]
    """Warnings about the data; empty for other machines, where `facts` tells them."""
    notes: list[str]
    """What was said on the way."""


class DeployCheck(Document):
    """`trainer deploy --check`: it could be deployed, and nothing was created."""

    document: Literal["deploy --check"] = "deploy --check"
    """The command."""
    name: str
    """The endpoint's or deployment's name."""
    facts: list[Fact]
    """What is about to be made."""
    quote: Quote
    """What it would cost."""
    spend_cap: float | None
    """backend.spend_cap, which the quote does not exceed; null where there is none."""


class Endpoint(Part):
    """Something deployed, as the service reports it now."""

    name: str
    """Its name."""
    run: str
    """The run."""
    state: str
    """The service's word for its state."""
    model: str
    """The model behind it."""
    cost: str
    """So far, or by the hour; may be empty."""
    until: str
    """When the service deletes it by itself; may be empty."""
    url: str
    """Where it answers; may be empty."""


class Deploy(Document):
    """`trainer deploy`: what was deployed. It bills until `trainer teardown RUN`."""

    document: Literal["deploy"] = "deploy"
    """The command."""
    endpoint: Endpoint
    """What answers now."""


class Endpoints(Document):
    """What is deployed, and everything else that was created and still bills."""

    document: Literal["endpoints"] = "endpoints"
    """The command."""
    endpoints: list[Endpoint]
    """What is deployed."""
    bills: list[Thing]
    """What the ledgers hold that may bill, deployments among it."""
    unreachable: list[str]
    """Runs whose service could not be asked; standard error says why."""
    damaged: list[str]
    """Runs whose ledger is damaged, so that nobody knows what of theirs bills; the exit code is 2 then."""


class Model(Part):
    """A model of the fine-tuning service."""

    name: str
    """Its name."""
    can_tune: bool | None
    """Whether it can be tuned; null where the service does not say."""
    tuning_until: str | None
    """The day on which new jobs end."""
    inference_until: str | None
    """The day on which it stops to answer."""
    lifecycle: str
    """The service's word."""
    is_own: bool
    """Whether fine-tuning made it."""


class Models(Document):
    """What the fine-tuning service of a config can tune."""

    document: Literal["models"] = "models"
    """The command."""
    models: list[Model]
    """Each of them; with --all also those that cannot be tuned."""


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
