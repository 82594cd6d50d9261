"""A deployment before it is made: what it will be, what it costs and when Azure ends it, or why it cannot be."""

from dataclasses import dataclass
from typing import Any

from trainer.backends.contract import DeploymentOptions, DeploymentPlan
from trainer.backends.http import Say, patiently
from trainer.backends.openai.bases import checkpoint_model
from trainer.backends.openai.exam import find_exam
from trainer.backends.openai.limits import Exam
from trainer.backends.openai.management import Account, account_of, connect, or_none
from trainer.backends.openai.names import TOKEN_KEY, launch_of, token_of
from trainer.backends.openai.prices import Prices, prices_of
from trainer.backends.openai.quoting import comparison_item
from trainer.backends.quote import Item, Quote
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError, DataError
from trainer.runs import Run
from trainer.runs.ledger import Ledger

SKUS = {"developer": "DeveloperTier", "standard": "Standard", "global-standard": "GlobalStandard"}
DEFAULT_SKU, DEFAULT_CAPACITY = "developer", 50  # capacity: thousands of tokens a minute
DEVELOPER_HOURS, IDLE_DAYS = 24, 15  # after which Azure deletes a deployment by itself


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
    exam = _exam(run, settings, options, say)
    capacity = options.capacity or DEFAULT_CAPACITY
    made = TuningDeployment(settings, account, name, model, SKUS[sku], capacity, _bills(sku, hourly), exam is not None)
    _refuse_taken(run, settings, made, say)
    rows = [
        ("deployment", f"{name} in {account.name} ({account.resource_group})"),
        ("model", model),
        ("kind", f"{made.sku}, {made.capacity},000 tokens a minute"),
        ("ends", _ends(sku)),
    ]
    return DeploymentPlan(name, _quote(sku, hourly, prices, exam), rows, made)


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


def _refuse_taken(run: Run, settings: RunConfig, made: TuningDeployment, say: Say) -> None:
    """Azure replaces a deployment of the same name. Raises: ConfigError, when there is one that is not this run's."""
    if Ledger(run.path).find("deployment", made.name) is not None:
        return
    found = patiently(lambda: find_deployment(settings, made.account, made.name), "looking at the deployments", say)
    if found is not None and (found.tags or {}).get(TOKEN_KEY) != token_of(run):
        raise ConfigError(
            f"deployment {made.name!r}: exists in {made.account.name!r} and is not this run's, expected a new name; "
            "choose one with --name"
        )


def _exam(run: Run, settings: RunConfig, options: DeploymentOptions, say: Say) -> Exam | None:
    """The comparison with the base, if a deployment of it is named and it has not been made."""
    if settings.openai.base_deployment is None or options.checkpoint is not None or run.comparison():
        return None
    try:
        return find_exam(run, run.config())
    except (ConfigError, DataError) as error:
        say(f"no comparison with the base: {error}")
        return None


def _quote(sku: str, hourly: float | None, prices: Prices, exam: Exam | None) -> Quote:
    tokens = "tokens: price not known"
    if prices.input is not None and prices.output is not None:
        tokens = f"tokens: {prices.input:,.2f} a million read, {prices.output:,.2f} a million written"
    goes_on = () if sku == "developer" else ("it bills by the hour until: trainer teardown",)
    items = [Item("hosting, the first hour", hourly)]
    if exam is not None:
        items.append(comparison_item(exam, prices))
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


def find_deployment(settings: RunConfig, account: Account, name: str) -> Any:
    """The deployment as Azure describes it; None where there is none."""
    deployments = connect(settings.openai, account).deployments
    return or_none(lambda: deployments.get(account.resource_group, account.name, name))
