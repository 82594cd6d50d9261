"""Plans, quotes and endpoints as documents."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

from trainer.cli.documents.data import Finding
from trainer.cli.documents.start import (
    DeployCheck,
    Endpoint,
    Fact,
    LocalPlan,
    Model,
    Quote,
    QuoteItem,
    TooLong,
    TrainCheck,
)

if TYPE_CHECKING:
    from trainer.backends import quote as quotes
    from trainer.backends import remote
    from trainer.training.prepare import Prepared


def local_check(prepared: "Prepared", notes: Sequence[str]) -> TrainCheck:
    """What `train --check` found for this machine; `notes` were told on the way."""
    from trainer.model.device import describe  # imports torch, which is loaded by now

    plan, data, memory, model = prepared.plan, prepared.data, prepared.memory, prepared.config.model
    numbers = LocalPlan(
        base=model.base,
        revision=prepared.base.revision,
        dtype=str(prepared.dtype).removeprefix("torch."),
        quantization=model.quantization,
        device=describe(prepared.device),
        rows_trained=len(data.train),
        rows_held_out=len(data.validation),
        num_tokens=data.num_tokens,
        num_supervised_tokens=data.num_supervised,
        longest_row=data.longest,
        n_epochs=plan.n_epochs,
        batch_size=plan.batch_size,
        steps_per_epoch=plan.steps_per_epoch,
        total_steps=plan.total_steps,
        learning_rate=plan.learning_rate,
        seed=plan.seed,
        max_length=plan.max_length,
        token_budget=plan.token_budget,
        recompute_layers=plan.recompute_layers,
        peak_memory_bytes=memory.peak_bytes,
        free_memory_bytes=memory.free_bytes,
        too_long=[TooLong.model_validate(row) for row in data.touched],
    )
    return TrainCheck(
        backend="local",
        plan=numbers,
        facts=[],
        job=None,
        quote=None,
        spend_cap=None,
        findings=[Finding.model_validate(finding) for finding in data.report.findings],
        notes=list(notes),
    )


def remote_check(plan: "remote.Plan", notes: Sequence[str]) -> TrainCheck:
    """What `train --check` found for another machine; `notes` were told on the way."""
    backend = plan.config.backend
    return TrainCheck(
        backend=backend.kind,
        plan=None,
        facts=_facts(plan.rows),
        job=plan.text or None,
        quote=_quote(plan.quote),
        spend_cap=backend.spend_cap,
        findings=[],
        notes=list(notes),
    )


def deploy_check(plan: "remote.DeploymentPlan", spend_cap: float | None) -> DeployCheck:
    """What `trainer deploy --check` found."""
    return DeployCheck(name=plan.name, facts=_facts(plan.rows), quote=_quote(plan.quote), spend_cap=spend_cap)


def endpoint_of(endpoint: "remote.Endpoint", run: str) -> Endpoint:
    """An endpoint of a run."""
    return Endpoint.model_validate({name: getattr(endpoint, name) for name in Endpoint.model_fields} | {"run": run})


def model_of(model: "remote.Model") -> Model:
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
