"""Deployments on Azure, planned, made and listed: they let a tuned model answer, and bill by the hour until deleted."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from trainer.backends.contract import DeploymentOptions, DeploymentPlan, Endpoint
from trainer.backends.http import Say, failure_of, patiently, refusal
from trainer.backends.idempotent import LOOK_UPS, create_once, look_for
from trainer.backends.openai.account import DEPLOY, Account, AccountDeployment, account_at, account_of
from trainer.backends.openai.client import address
from trainer.backends.openai.held_out import ComparisonPlan, quoted_comparison
from trainer.backends.openai.models import checkpoint_model
from trainer.backends.openai.names import TOKEN_KEY, deployment_thing, launch_of, token_of
from trainer.backends.openai.prices import ServicePrices, prices_of
from trainer.backends.quote import Item, Quote
from trainer.config.schema import RunConfig
from trainer.errors import BackendError, ConfigError, DataError
from trainer.runs import Run
from trainer.runs.ledger import Entry, Ledger

SKUS = {"developer": "DeveloperTier", "standard": "Standard", "global-standard": "GlobalStandard"}
DEFAULT_SKU, DEFAULT_CAPACITY = "developer", 50  # capacity: thousands of tokens a minute
DEVELOPER_HOURS, IDLE_DAYS = 24, 15  # after which Azure deletes a deployment by itself
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
    capacity: int
    bills: str
    compares: bool  # once it answers; its cost is in the quote


def plan_deployment(
    run: Run, settings: RunConfig, options: DeploymentOptions, say: Say
) -> DeploymentPlan[TuningDeployment]:
    """Raises: ConfigError, BackendError."""
    _refuse(settings, options)
    model, sku = model_to_deploy(run, options.checkpoint), options.sku or DEFAULT_SKU
    prices = prices_of(launch_of(run).family, settings.openai)
    name, account = options.name or run.name[:64], account_of(settings.openai)
    hourly = 0.0 if sku == "developer" else prices.hosting
    comparison = _comparison(run, settings, options, say)
    capacity = options.capacity or DEFAULT_CAPACITY
    made = TuningDeployment(
        settings, account, name, model, SKUS[sku], capacity, _bills(sku, hourly), comparison is not None
    )
    _refuse_taken(run, made, say)
    rows = [
        ("deployment", f"{name} in {account.name} ({account.resource_group})"),
        ("model", model),
        ("kind", f"{made.sku}, {made.capacity},000 tokens a minute"),
        ("ends", _ends(sku)),
    ]
    return DeploymentPlan(name, _quote(sku, hourly, prices, comparison), rows, made)


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
    ledger, thing = Ledger(run.path), deployment_thing(run, made.name, made.account.id, made.bills)
    deployment = AccountDeployment(made.settings.openai, made.account, made.name)
    try:
        create_once(
            ledger,
            thing,
            look_up=deployment.read,
            create=lambda: deployment.create(_body(run, made)),
            facts_of=lambda found: {"id": str(found.id or made.name), "model": made.model, "sku": made.sku},
            say=say,
        )
    except BackendError as error:
        raise _explained(error) from error.__cause__
    _wait(deployment, say)
    entry = ledger.find("deployment", made.name)
    assert entry is not None
    return _endpoint(run, made.settings, entry, READY)


def endpoints(run: Run, say: Say) -> Iterator[Endpoint]:
    """The run's deployments as they are now; one that Azure has deleted is written down as gone."""
    settings = run.config()
    for entry in deployments_of(run):
        deployment = AccountDeployment(settings.openai, account_at(entry.thing.place), entry.thing.key)
        found = look_for(deployment.read, entry.thing, LOOK_UPS)
        if found is None:
            if entry.step == "exists":
                say(f"deployment {entry.thing.key}: is gone; Azure deletes idle ones by itself")
                Ledger(run.path).write(entry.thing, "deleted")
            continue
        yield _endpoint(run, settings, entry, _state(found))


def deployments_of(run: Run) -> list[Entry]:
    """The deployments that the run has, or may have."""
    return [entry for entry in Ledger(run.path).open() if entry.thing.kind == "deployment"]


def newest(run: Run) -> str | None:
    """The name of the deployment that was made last and is there."""
    names = [entry.thing.key for entry in deployments_of(run) if entry.step == "exists"]
    return names[-1] if names else None


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
    if Ledger(run.path).find("deployment", made.name) is not None:
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
    items = [Item("hosting, the first hour", hourly)]
    if comparison is not None:
        items.append(comparison.quoted(prices))
    return Quote(tuple(items), prices.source, running=(*goes_on, tokens))


def _bills(sku: str, hourly: float | None) -> str:
    if sku == "developer":
        return f"by the token; deleted by Azure after {DEVELOPER_HOURS} hours"
    price = "an hour at a price not known" if hourly is None else f"{hourly:,.2f} USD an hour"
    return f"{price} until it is deleted"


def _ends(sku: str) -> str:
    if sku == "developer":
        return f"Azure deletes it {DEVELOPER_HOURS} hours after it is made, whether it is used or not; no SLA"
    return f"Azure deletes it after {IDLE_DAYS} days without an answer; until then it bills by the hour, used or not"


def _body(run: Run, made: TuningDeployment) -> Any:
    from azure.mgmt.cognitiveservices.models import Deployment as Body
    from azure.mgmt.cognitiveservices.models import DeploymentModel, DeploymentProperties, Sku

    model = DeploymentModel(format="OpenAI", name=made.model, version="1")
    return Body(
        sku=Sku(name=made.sku, capacity=made.capacity),
        properties=DeploymentProperties(model=model, version_upgrade_option="NoAutoUpgrade"),
        tags={TOKEN_KEY: token_of(run)},
    )


def _wait(deployment: AccountDeployment, say: Say) -> None:
    """Raises: BackendError, when it fails or takes too long; it may bill then."""
    until, wait = time.monotonic() + CREATION_SECONDS, FIRST_WAIT_SECONDS
    while True:
        found = patiently(deployment.read, "looking at the deployment", say)
        state = "Creating" if found is None else _state(found)
        if state == READY:
            return
        if state in BROKEN or time.monotonic() > until:
            raise BackendError(
                f"deployment {deployment.name!r}: is {state}, expected Succeeded; look at it in the portal, and remove "
                "it with trainer teardown"
            )
        say(f"deployment {deployment.name}: {state}")
        time.sleep(wait)
        wait = min(wait * 1.5, MOST_WAIT_SECONDS)


def _state(found: Any) -> str:
    return str(getattr(found.properties, "provisioning_state", None) or "unknown")


def _endpoint(run: Run, settings: RunConfig, entry: Entry, state: str) -> Endpoint:
    made_at = datetime.fromisoformat(entry.created_at)
    facts, sku = entry.facts, str(entry.facts.get("sku", ""))
    until = f"{IDLE_DAYS} days after its last answer"
    if sku == SKUS["developer"]:
        until = f"{made_at + timedelta(hours=DEVELOPER_HOURS):%Y-%m-%d %H:%M} UTC"
    return Endpoint(
        entry.thing.key,
        run.name,
        state,
        str(facts.get("model", "")),
        _so_far(settings, run, sku, made_at),
        until,
        f"{address(settings.openai)}/chat/completions",
    )


def _so_far(settings: RunConfig, run: Run, sku: str, made_at: datetime) -> str:
    if sku == SKUS["developer"]:
        return "tokens only"
    hourly = prices_of(launch_of(run).family, settings.openai).hosting
    if hourly is None:
        return "by the hour, price not known"
    hours = (datetime.now(UTC) - made_at).total_seconds() / 3600
    return f"{hourly:,.2f} USD/h, about {hours * hourly:,.2f} so far"


def _explained(error: BackendError) -> BackendError:
    cause = error.__cause__
    if isinstance(cause, Exception) and failure_of(cause).status == 403:
        hint = f"deploying needs the role Foundry Owner, or the right {DEPLOY}"
        return refusal(failure_of(cause), "creating the deployment", hint)
    return error
