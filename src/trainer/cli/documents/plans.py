"""Documents of plans, quotes, endpoints and models, built from those of backends."""

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
    """The thing or service paid for."""
    amount: float | None
    """Its price; null where none is known, which is never guessed."""
    dearest: float | None
    """The price by its dearest source; null where one source has it."""


class Quote(Part):
    """Price of a plan, before anything is spent."""

    items: list[QuoteItem]
    """One-time payments; empty where everything is free, or bills by the hour."""
    total: float | None
    """Their sum; null where a price is missing."""
    ceiling: float | None
    """The sum of the dearest prices, which spend_cap is compared with; null where a price is missing."""
    currency: str
    """Of all amounts."""
    source: str
    """The price list and its date."""
    running: list[str]
    """Things that keep billing until they are deleted, each in a sentence."""
    notes: list[str]
    """Costs that the figures leave out."""


class Fact(Part):
    """A line of a plan, for people."""

    title: str
    """Its subject."""
    text: str
    """The statement."""


class Check(Part):
    """One check of a service."""

    what: str
    """Its subject."""
    outcome: Literal["ok", "problem", "not looked at"]
    """ok, a problem that this command does not meet, or not looked at."""
    found: str
    """The finding, or the reason why nothing was looked at."""


class UploadFile(Part):
    """A file that would be uploaded."""

    path: str
    """Its path in the upload."""
    bytes: int
    """Its size."""


class TooLong(Part):
    """A row over data.max_length."""

    place: str
    """FILE:LINE."""
    num_tokens: int
    """Its tokens."""
    outcome: str
    """Its treatment by data.on_overlength."""


class WeightShare(Part):
    """Weights of one kind in the base."""

    kind: str
    """Attention, experts, router, embeddings, …"""
    weights: int
    """Weights of this kind."""
    adapted: int
    """Those that get an adapter."""
    quantized: int
    """Those that are stored quantized."""


class LocalPlan(Part):
    """A run on this machine, in numbers; nothing is `auto` any more."""

    base: str
    """The model that is tuned."""
    revision: str | None
    """Its commit at the model hub."""
    dtype: str
    """The number format that is computed in."""
    quantization: str
    """Storage of the base's weights, or none."""
    weights: list[WeightShare]
    """The base's weights by kind, the most first: what gets an adapter, and what is quantized."""
    adapter_weights: int
    """Weights of the adapter, which are trained."""
    device: str
    """The device that computes."""
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
    """The seed of the data order and of the adapter's first weights."""
    max_length: int
    """The longest row that is accepted, in tokens."""
    token_budget: int
    """Tokens computed at a time."""
    recompute_layers: int
    """Layers recomputed in the backward pass to save memory."""
    peak_memory_bytes: int
    """Estimated peak of training on the device."""
    free_memory_bytes: int
    """Memory free there, or memory.limit_gb."""
    too_long: list[TooLong]
    """Rows over max_length."""


class TrainCheck(Document):
    """`train --check`: everything is in order, and nothing was created. What is wrong is an error, and no document."""

    document: Literal["train --check"] = "train --check"
    """The command."""
    backend: Kind
    """The backend that would execute the run."""
    plan: LocalPlan | None
    """The run in numbers; null where another machine executes it."""
    facts: list[Fact]
    """The steps planned there; empty for this machine."""
    checks: list[Check]
    """Every check of the service; empty where the backend makes none of its own."""
    job: str | None
    """The job as it would be submitted, where the service takes one as text."""
    files: list[UploadFile]
    """The files that would be uploaded beside the job; empty where the service takes none so."""
    quote: Quote | None
    """The price; null on this machine, where nothing bills."""
    spend_cap: float | None
    """backend.spend_cap, which the quote does not exceed; null where there is none."""
    doubts: list[str]
    """Contradictions that have to be settled first: a terminal asks, and --yes does not answer."""
    findings: list[Finding]
    """Warnings about the data; empty for other machines, where `facts` tells them."""
    notes: list[str]
    """Messages of the check."""


class DeployCheck(Document):
    """`trainer deploy --check`: it could be deployed, and nothing was created."""

    document: Literal["deploy --check"] = "deploy --check"
    """The command."""
    name: str
    """The endpoint's or deployment's name."""
    facts: list[Fact]
    """Properties of the planned deployment."""
    checks: list[Check]
    """Every check of the service; empty where the backend makes none of its own."""
    quote: Quote
    """Its price."""
    spend_cap: float | None
    """backend.spend_cap, which the quote does not exceed; null where there is none."""
    doubts: list[str]
    """Contradictions that have to be settled first: a terminal asks, and --yes does not answer."""


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
    """Time at which the service deletes it by itself; may be empty."""
    url: str
    """Its address; may be empty."""


class Deploy(Document):
    """`trainer deploy`: what was deployed. It bills until `trainer teardown RUN`."""

    document: Literal["deploy"] = "deploy"
    """The command."""
    endpoint: Endpoint
    """The endpoint that answers now."""


class Endpoints(Document):
    """Deployments, and everything else that was created and still bills."""

    document: Literal["endpoints"] = "endpoints"
    """The command."""
    endpoints: list[Endpoint]
    """The deployments."""
    bills: list[Thing]
    """Everything in the ledgers that may bill, deployments among it."""
    unreachable: list[str]
    """Runs whose service could not be asked; standard error says why."""
    damaged: list[str]
    """Runs whose ledger is damaged, so that nobody knows what of theirs bills; the exit code is 2 then."""


class Model(Part):
    """A model of the fine-tuning service."""

    name: str
    """Its name."""
    can_tune: bool | None
    """True where it can be tuned; null where the service does not say."""
    methods: list[str]
    """Methods of training: sft, dpo, and rft, which this trainer does not send. Empty where they are not known."""
    training_types: list[str]
    """Values of openai.training_type that it takes. Empty where they are not known."""
    tuning_until: str | None
    """The day on which new jobs end."""
    new_customers_until: str | None
    """The day on which new jobs end for those who have not tuned it before."""
    inference_until: str | None
    """The day on which it stops to answer."""
    lifecycle: str
    """The service's word."""
    is_own: bool
    """True for a model that fine-tuning made."""


class Models(Document):
    """Models that the fine-tuning service of a config can tune."""

    document: Literal["models"] = "models"
    """The command."""
    models: list[Model]
    """Each of them; with --all also those that cannot be tuned."""


class Size(Part):
    """A machine that a service rents."""

    name: str
    """Name of the size, a value of azureml.instance_type."""
    num_gpus: int
    """Its GPUs; a part of one counts as one."""
    gpu: str
    """Their kind, or the part of one."""
    gpu_memory_bytes: int
    """Of each."""
    num_cores: int
    """Virtual processors, which quotas count."""
    memory_bytes: int
    """Of the machine."""
    disk_bytes: int
    """Its temporary disk; a node may have less."""
    driver: str
    """The family of NVIDIA's driver: compute or grid."""
    as_of: str
    """The day on which these numbers were right."""
    retired: str
    """Since when it is not offered; empty for one that is."""


class Sizes(Document):
    """GPU machines whose numbers are known."""

    document: Literal["sizes"] = "sizes"
    """The command."""
    sizes: list[Size]
    """Each of them, those of the last --refresh among them."""


def train_check(plan: "contract.Plan[Any]", notes: Sequence[str]) -> TrainCheck:
    """Document of `train --check`; `notes`: messages of the check."""
    backend, bills = plan.config.backend, plan.quote.bills
    return TrainCheck(
        backend=backend.kind,
        plan=None if plan.numbers is None else LocalPlan.model_validate(plan.numbers),
        facts=_facts(plan.rows) if plan.numbers is None else [],
        checks=[Check.model_validate(check) for check in plan.checks],
        job=plan.text or None,
        files=[UploadFile.model_validate(file) for file in plan.files],
        quote=quote_of(plan.quote) if bills else None,
        spend_cap=backend.spend_cap if bills else None,
        doubts=list(plan.doubts),
        findings=[Finding.model_validate(finding) for finding in plan.findings],
        notes=list(notes),
    )


def deploy_check(plan: "contract.DeploymentPlan[Any]", spend_cap: float | None) -> DeployCheck:
    """Document of `trainer deploy --check`."""
    checks = [Check.model_validate(check) for check in plan.checks]
    facts, quote = _facts(plan.rows), quote_of(plan.quote)
    doubts = list(plan.doubts)
    return DeployCheck(name=plan.name, facts=facts, checks=checks, quote=quote, spend_cap=spend_cap, doubts=doubts)


def endpoint_of(endpoint: "contract.Endpoint", run: str) -> Endpoint:
    """An endpoint of a run."""
    return Endpoint.model_validate({name: getattr(endpoint, name) for name in Endpoint.model_fields} | {"run": run})


def model_of(model: "contract.ServiceModel") -> Model:
    """A model of the service, with its days in ISO 8601."""
    values = {name: getattr(model, name) for name in Model.model_fields}
    days = {name: day.isoformat() for name, day in values.items() if isinstance(day, date)}
    lists = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
    return Model.model_validate(values | days | lists)


def _facts(rows: Sequence[tuple[str, str]]) -> list[Fact]:
    return [Fact(title=title, text=text) for title, text in rows]


def quote_of(quote: "quotes.Quote") -> Quote:
    """A quote."""
    return Quote(
        items=[QuoteItem(what=item.what, amount=item.amount, dearest=item.dearest) for item in quote.items],
        total=quote.total,
        ceiling=quote.ceiling,
        currency=quote.currency,
        source=quote.source,
        running=list(quote.running),
        notes=list(quote.notes),
    )
