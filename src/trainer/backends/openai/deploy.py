"""Deployments on Azure, planned, made and listed: they let a tuned model answer, and bill by the hour until deleted."""

import time
from dataclasses import dataclass
from typing import Any

from trainer.backends.contract import DeploymentOptions, DeploymentPlan, Endpoint
from trainer.backends.http import Say, patiently
from trainer.backends.idempotent import create_once
from trainer.backends.openai.account import (
    DEPLOY,
    Account,
    AccountDeployment,
)
from trainer.backends.openai.catalog import find_in_catalog
from trainer.backends.openai.copy import STAYS, CheckpointCopy, ensure_copy, plan_copy
from trainer.backends.openai.endpoints import DEVELOPER_HOURS, IDLE_DAYS, endpoint_of, state_of_deployment
from trainer.backends.openai.held_out import ComparisonPlan, quoted_comparison
from trainer.backends.openai.models import checkpoint_model
from trainer.backends.openai.names import TOKEN_KEY, deployment_thing, launch_of, token_of
from trainer.backends.openai.offer import Offer
from trainer.backends.openai.price_list import ServicePrices, prices_of
from trainer.backends.openai.refusals import explained_deployment
from trainer.backends.openai.site import Site, find_site
from trainer.backends.openai.skus import SKUS, UNKNOWN_CAPACITY, find_quota, hold_quota, judge_sku, usual_sku
from trainer.backends.quote import Item, Quote
from trainer.config.schema import RunConfig
from trainer.errors import BackendError, ConfigError, DataError
from trainer.runs import Run
from trainer.runs.ledger import Ledger
from trainer.runs.lifecycle import refuse_failed_gate

READY, BROKEN = "Succeeded", frozenset({"Failed", "Canceled", "Disabled"})
FIRST_WAIT_SECONDS, MOST_WAIT_SECONDS, CREATION_SECONDS = 1.0, 20.0, 3600.0


@dataclass(frozen=True, slots=True)
class TuningDeployment:
    """A deployment that a plan describes."""

    settings: RunConfig  # where it goes
    account: Account
    name: str
    model: str
    sku: str  # in Azure's word
    capacity: int  # thousands of tokens a minute
    format: str  # by the publisher of the base
    hourly: float | None
    bills: str
    source: Account | None  # of the model, where it was trained in another resource
    url: str  # of the API there
    copy: CheckpointCopy | None  # made before it, so that it needs no source
    compares: bool  # once it answers; its cost is in the quote


@dataclass(frozen=True, slots=True)
class Choice:
    """A deployment of any model of a family, as far as it can be planned without the model."""

    account: Account
    sku: str  # in our word
    capacity: int
    format: str
    prices: ServicePrices
    offer: Offer

    @property
    def hourly(self) -> float | None:
        """The price of an hour; None where it is not known."""
        return 0.0 if self.sku == "developer" else self.prices.hosting

    @property
    def dearest_hourly(self) -> float | None:
        """The same by the source that has the highest."""
        return 0.0 if self.sku == "developer" else self.prices.dearest("hosting")


def choose_deployment(settings: RunConfig, family: str, options: DeploymentOptions, site: Site) -> Choice:
    """Hold a deployment against what table and region offer, and price it. Raises: ConfigError."""
    account, region, quotas, row = site.account, site.region, site.quotas, find_in_catalog(family)
    sku = options.sku or settings.openai.deployment_sku or usual_sku(row, region)
    quota = find_quota(quotas, SKUS[sku], family)
    offer = site.judge_region(settings.openai, family) + judge_sku(
        settings.openai, family, row, SKUS[sku], region, quota
    )
    capacity = options.capacity or (UNKNOWN_CAPACITY if row is None else row.capacity)
    hold_quota(capacity, quota)
    prices = prices_of(family, settings.openai, site.listed, SKUS[sku])
    return Choice(account, sku, capacity, "OpenAI" if row is None else row.format, prices, offer)


def plan_deployment(
    run: Run, settings: RunConfig, options: DeploymentOptions, say: Say
) -> DeploymentPlan[TuningDeployment]:
    """Raises: ConfigError, BackendError."""
    refuse_failed_gate(run, options.ignore_gate)
    _refuse(settings, options)
    model, family = model_to_deploy(run, options.checkpoint), launch_of(run).family
    site = find_site(run, settings, options, say)
    chosen = choose_deployment(settings, family, options, site)
    copy = plan_copy(run, settings.openai, options.checkpoint, site, say) if options.copies else None
    name, account, sku, hourly = options.name or name_for(run.name), chosen.account, chosen.sku, chosen.hourly
    comparison, prices, offer = _comparison(run, settings, options, say), chosen.prices, chosen.offer
    made = TuningDeployment(
        settings,
        account,
        name,
        model,
        SKUS[sku],
        chosen.capacity,
        chosen.format,
        hourly,
        _bills(sku, hourly),
        None if copy else site.source,
        site.url,
        copy,
        comparison is not None,
    )
    _refuse_taken(run, made, say)
    rows = [
        ("deployment", f"{name} in {account.name} ({account.resource_group})"),
        *_on_site(site),
        *([("copy", f"{copy.checkpoint}, made first; {STAYS}")] if copy else []),
        ("model", model),
        ("kind", f"{made.sku}, {made.capacity},000 tokens a minute"),
        ("ends", ends(sku)),
        *(("contradiction", doubt) for doubt in offer.doubts),
        *(("warning", note) for note in offer.notes),
    ]
    return DeploymentPlan(name, _quote(sku, hourly, prices, comparison), rows, made, offer.doubts)


def _on_site(site: Site) -> list[tuple[str, str]]:
    """Lines on a resource that is not the run's own."""
    if site.source is None:
        return []
    there, here = site.account, site.source
    where = f"{there.name} in {site.region}, {there.resource_group} of {there.subscription}; {site.url}"
    return [
        ("source", f"{here.name}, {here.resource_group} of {here.subscription}, which has trained it"),
        ("target", where),
    ]


def name_for(run: str) -> str:
    """The name of a run's deployment where none is given; Azure takes 64 characters."""
    return run[:64]


def model_to_deploy(run: Run, step: str | None = None) -> str:
    """The run's tuned model, or that of a checkpoint. Raises: ConfigError."""
    if step is not None:
        return checkpoint_model(run, step)
    model = run.status().get("fine_tuned_model")
    if not model:
        raise ConfigError(
            f"run {run.name!r}: is {run.state} and has no model, expected one that has succeeded; "
            f"see: trainer show {run.path}, or name a checkpoint with --checkpoint STEP"
        )
    return str(model)


def deploy(made: TuningDeployment, run: Run, say: Say) -> Endpoint:
    """Make the deployment, unless it is there, and wait until it answers. Raises: BackendError."""
    if made.copy is not None:
        ensure_copy(made.copy, run.config().openai, run, say)
    ledger, thing = Ledger(run.path), deployment_thing(run, made.name, made.account.id, made.bills)
    deployment = AccountDeployment(made.settings.openai, made.account, made.name)
    try:
        create_once(
            ledger,
            thing,
            look_up=deployment.read,
            create=lambda: deployment.create(_body(run, made)),
            facts_of=lambda found: {
                "id": str(found.id or made.name),
                "model": made.model,
                "sku": made.sku,
                "hourly": made.hourly,
            },
            say=say,
            known={"url": made.url} if made.url else {},
        )
    except BackendError as error:
        raise explained_deployment(error, DEPLOY) from error.__cause__
    _wait(deployment, say)
    entry = ledger.find("deployment", made.name, made.account.id)
    assert entry is not None
    return endpoint_of(run, made.settings, entry, READY)


def _refuse(settings: RunConfig, options: DeploymentOptions) -> None:
    if settings.openai.service != "azure":
        raise ConfigError(
            "nothing needs deploying here: a model that the service has tuned answers at once; "
            "talk to it with: trainer chat RUN"
        )
    foreign = ("mode", "instance_type", "instance_count")
    problems = [
        f"--{name.replace('_', '-')}: is for Azure ML, expected none on Azure OpenAI; remove it"
        for name in foreign
        if getattr(options, name) is not None
    ]
    if options.sku is not None and options.sku not in SKUS:
        problems.append(f"--sku: is {options.sku!r}, expected one of {', '.join(SKUS)}")
    if problems:
        raise ConfigError(*problems)


def _refuse_taken(run: Run, made: TuningDeployment, say: Say) -> None:
    """Azure replaces a deployment of the same name. Raises: ConfigError, when there is one that is not this run's."""
    if Ledger(run.path).find("deployment", made.name, made.account.id) is not None:
        return
    deployment = AccountDeployment(made.settings.openai, made.account, made.name)
    found = patiently(deployment.read, "looking at the deployments", say)
    if found is not None and (found.tags or {}).get(TOKEN_KEY) != token_of(run):
        raise ConfigError(
            f"deployment {made.name!r}: exists in {made.account.name!r} and is not this run's, expected a new name; "
            "choose one with --name"
        )


def _comparison(run: Run, settings: RunConfig, options: DeploymentOptions, say: Say) -> ComparisonPlan | None:
    """The comparison with the base, if a deployment of it is named and it has not been made."""
    if settings.openai.base_deployment is None or options.checkpoint is not None or run.comparison():
        return None
    try:
        return quoted_comparison(run, run.config())
    except (ConfigError, DataError) as error:
        say(f"no comparison with the base: {error}")
        return None


def _quote(sku: str, hourly: float | None, prices: ServicePrices, comparison: ComparisonPlan | None) -> Quote:
    tokens = "tokens: price not known"
    if prices.input is not None and prices.output is not None:
        tokens = f"tokens: {prices.input:,.2f} a million read, {prices.output:,.2f} a million written"
    goes_on = () if sku == "developer" else ("it bills by the hour until: trainer teardown",)
    items = [Item("hosting, the first hour", hourly, None if sku == "developer" else prices.dearest("hosting"))]
    if comparison is not None:
        items.append(comparison.quoted(prices))
    notes = () if sku == "developer" else hosting_notes(prices)
    return Quote(tuple(items), prices.source, running=(*goes_on, tokens), notes=notes)


def hosting_notes(prices: ServicePrices) -> tuple[str, ...]:
    """Readings of the price of an hour where its sources differ."""
    readings = prices.differing("hosting")
    return (f"an hour of hosting: {readings}; a spend cap is compared with the dearest",) if readings else ()


def _bills(sku: str, hourly: float | None) -> str:
    if sku == "developer":
        return f"by the token; deleted by Azure after {DEVELOPER_HOURS} hours"
    price = "an hour at a price not known" if hourly is None else f"{hourly:,.2f} USD an hour"
    return f"{price} until it is deleted"


def ends(sku: str) -> str:
    """The end that Azure itself makes of a deployment."""
    if sku == "developer":
        return f"Azure deletes it {DEVELOPER_HOURS} hours after it is made, whether it is used or not; no SLA"
    return f"Azure deletes it after {IDLE_DAYS} days without an answer; until then it bills by the hour, used or not"


def _body(run: Run, made: TuningDeployment) -> Any:
    from azure.mgmt.cognitiveservices.models import Deployment as Body
    from azure.mgmt.cognitiveservices.models import DeploymentModel, DeploymentProperties, Sku

    source = None if made.source is None else made.source.id
    model = DeploymentModel(format=made.format, name=made.model, version="1", source=source)
    return Body(
        sku=Sku(name=made.sku, capacity=made.capacity),
        properties=DeploymentProperties(model=model, version_upgrade_option="NoAutoUpgrade"),
        tags={TOKEN_KEY: token_of(run)},
    )


def _wait(deployment: AccountDeployment, say: Say) -> None:
    """Raises: BackendError, when it fails or takes too long; it may bill then."""
    until, wait, told = time.monotonic() + CREATION_SECONDS, FIRST_WAIT_SECONDS, ""
    while True:
        found = patiently(deployment.read, "looking at the deployment", say)
        state = "Creating" if found is None else state_of_deployment(found)
        if state == READY:
            return
        if state in BROKEN or time.monotonic() > until:
            raise BackendError(
                f"deployment {deployment.name!r}: is {state}, expected Succeeded; look at it in the portal, and remove "
                "it with trainer teardown"
            )
        if state != told:
            say(f"deployment {deployment.name}: {state}")
        told = state
        time.sleep(wait)
        wait = min(wait * 1.5, MOST_WAIT_SECONDS)
