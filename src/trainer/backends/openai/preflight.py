"""Everything that can be verified without creating anything: settings, data, resource, access, model, price."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace

from trainer.backends.contract import Plan, ServiceModel
from trainer.backends.http import Say, hurried
from trainer.backends.openai.account import AccountFacts, describe_account
from trainer.backends.openai.auto_deploy import AutoDeployment, plan_auto_deployment
from trainer.backends.openai.catalog import family_of, find_in_catalog
from trainer.backends.openai.client import OURS, FineTuningService
from trainer.backends.openai.data import (
    ServiceData,
    check_service_data,
    fetch_files,
    missing_files,
    notes_on_length,
    notes_on_model,
    refuse_urls,
)
from trainer.backends.openai.held_out import ComparisonPlan, plan_comparison, resolve_limits, seed_of
from trainer.backends.openai.jobs import job_body, read_jobs
from trainer.backends.openai.models import (
    ServiceBase,
    as_listed,
    find_base,
    find_model,
    list_models,
    refuse_method,
    who_can_use_it,
)
from trainer.backends.openai.names import TOKEN_KEY, new_token
from trainer.backends.openai.offer import Offer, judge
from trainer.backends.openai.price_list import OWN, RegionPrices, ServicePrices, list_region, prices_of
from trainer.backends.openai.prices import OPEN, encoding_for, epochs_of, quote_run
from trainer.backends.openai.skus import outlook
from trainer.backends.openai.training_types import residency, route_of, route_problems, usual_type
from trainer.backends.quote import Quote
from trainer.config.conflicts import SERVICE_DPO, foreign_settings, is_default
from trainer.config.openai import OpenAIConfig
from trainer.config.schema import DpoConfig, RunConfig
from trainer.data.read.sources import without_validation
from trainer.errors import Attempts, ConfigError
from trainer.kinds import learns_from_pairs
from trainer.runs.manifest import Launch, Manifest, ParentRun, PinnedBase
from trainer.training.manifest import shared

BOUNDS = {"n_epochs": 50, "batch_size": 256, "seed": 2_147_483_647}  # of the API's own document
NO_LEARNING_RATE = "the service has no such setting; use learning_rate_multiplier"
REASONS = {  # by section; azureml may stand beside openai, as it always may
    "model": "the service keeps its model itself; remove it, or use another backend",
    "lora": "the service chooses how it tunes; remove it, or use another backend",
    "training": "the service has no such setting; remove it, or use another backend",
    "memory": "the training runs on machines of the service; remove it",
    "tracking": "the service reports to trainer logs and show, and to openai.wandb by itself; remove it",
    "openai": "only Azure has it; remove it, or set openai.service to azure",
}
SHOWN_FINDINGS = 5
STOPPED_BY = "the deployment bills until it is deleted: trainer teardown RUN"
PACKAGES = ("openai", "azure-identity", "azure-mgmt-cognitiveservices", "tiktoken")


def check(config: RunConfig, say: Say) -> Plan[Manifest]:
    """Settings, data, credential, model and price; all that is wrong at once.

    Raises: ConfigError, DataError, BackendError, MissingDependency.
    """
    attempts = Attempts()
    attempts.make(refuse_settings, config)
    base = attempts.make(find_base, config.model.base)
    if base is not None and config.openai.service == OURS:
        base = replace(base, family=OPEN)  # whatever its name reminds of
    family = family_of(config.model.base) if base is None else base.family
    config = resolve_service(config, family)
    attempts.make(refuse_route, config.openai)
    if base is not None:
        attempts.make(refuse_method, config, base)
    checked = attempts.make(_check_rows, config, family, not attempts.errors, say)
    with hurried() if attempts.errors else nullcontext():  # what is wrong already is not kept waiting
        account = attempts.make(describe_account, config.openai, say) if config.openai.service == "azure" else None
        service = attempts.make(_reach, config, say)
        found = attempts.make(_find, config, base, service, account) if base and service else None
        known = account or AccountFacts("")
        listed = None if attempts.errors else list_region(config.openai, known.region)
        auto = (
            attempts.make(plan_auto_deployment, config, family, known, listed, say) if _auto_deploys(config) else None
        )
    attempts.end()
    assert checked is not None
    assert service is not None
    assert found is not None
    rows = _rows(config, checked, service, found, account)
    return _plan(config, found, checked, service, rows, listed, auto)


def refuse_settings(config: RunConfig) -> None:
    """Raises: ConfigError, with every setting that the service has no word for."""
    if problems := [*_foreign(config), *_values(config)]:
        raise ConfigError(*problems)


def resolve_service(config: RunConfig, family: str | None = None) -> RunConfig:
    """The config with the training type of its model: on Azure always one, as a job without is refused oddly."""
    if config.openai.service != "azure" or config.openai.training_type is not None:
        return config
    chosen = usual_type(find_in_catalog(family or config.model.base))
    return config.model_copy(update={"openai": config.openai.model_copy(update={"training_type": chosen})})


def refuse_route(settings: OpenAIConfig) -> None:
    """Raises: ConfigError, where the API's version cannot be asked for the training type."""
    if problems := route_problems(settings):
        raise ConfigError(*problems)


def _foreign(config: RunConfig) -> Iterator[str]:
    """Settings that only other backends, or the other service, can honor."""
    for section, name in foreign_settings(config):
        if section in REASONS and not is_default(config, section, name):
            reason = NO_LEARNING_RATE if name == "learning_rate" else REASONS[section]
            yield f"{section}.{name}: is set, but {reason}"


def _values(config: RunConfig) -> Iterator[str]:
    if learns_from_pairs(config.training.method) and config.openai.api_version is not None:
        yield (
            f"training.method: is 'dpo', which the API of {config.openai.api_version} has no word for, expected 'sft'; "
            "remove openai.api_version, or set training.method to sft"
        )
    if learns_from_pairs(config.training.method):
        yield from _dpo_values(config.training.dpo)
    if config.openai.wandb.project and route_of(config.openai) == "stable":
        yield (
            f"openai.wandb.project: is set, and the API of {config.openai.api_version} reports to none; remove it, or "
            "openai.api_version"
        )
    for name, most in BOUNDS.items():
        value = getattr(config.training, name)
        if isinstance(value, int) and value > most:
            yield f"training.{name}: is {value:,}, expected at most {most:,} on the openai backend; lower it"
    if config.openai.service == OURS:
        yield from _priced(config)
    if config.data.on_overlength != "error":
        yield (
            f"data.on_overlength: is {config.data.on_overlength!r}, expected 'error' on the openai backend, which "
            "uploads the rows as they are; leave out or shorten them in the file"
        )
    if config.data.train_reasoning != "auto":
        yield "data.train_reasoning: is set, expected 'auto' on the openai backend, which takes no thoughts; remove it"
    if config.backend.auto_deploy and config.openai.service != "azure":
        yield "backend.auto_deploy: is set, and a tuned model answers at once on this service; remove it"
    for source in config.data.train_sources:
        if source.weight != 1:
            yield (
                f"data.train: {source.path!r} has weight {source.weight:g}, expected 1 on the openai backend; repeat "
                "its rows in the file"
            )


def _priced(config: RunConfig) -> Iterator[str]:
    """Prices and a cap, of which the server has its own."""
    names = [f"openai.{name}" for name in OWN if getattr(config.openai, f"{name}_price") is not None]
    names = [f"{name}_price" for name in names] + (["backend.spend_cap"] if config.backend.spend_cap else [])
    for name in names:
        yield f"{name}: is set, and the cap of the server's own YAML decides there; remove it"


def _dpo_values(dpo: DpoConfig) -> Iterator[str]:
    for name, info in DpoConfig.model_fields.items():
        if name not in SERVICE_DPO and (value := getattr(dpo, name)) != info.default:
            yield (
                f"training.dpo.{name}: is {value!r}, expected {info.default!r} on the openai backend: the service's "
                "dpo has no setting but beta; remove it, or train on this machine"
            )


def _check_rows(config: RunConfig, family: str, clean: bool, say: Say) -> ServiceData | None:
    """Files behind URLs are fetched for a config that is right so far: one that is refused leaves nothing behind."""
    refuse_urls(config)
    if clean:
        fetch_files(config, say)
    elif missing_files(config):
        return None
    return check_service_data(config, family)


def _reach(config: RunConfig, say: Say) -> FineTuningService:
    service = FineTuningService(config.openai)
    read_jobs(service, say)
    return service


@dataclass(frozen=True, slots=True)
class _Found:
    """The base under the service's name for it, as it is listed, and what is offered for it."""

    base: ServiceBase
    model: ServiceModel | None
    notes: list[str]
    offer: Offer


def _find(config: RunConfig, base: ServiceBase, service: FineTuningService, account: AccountFacts | None) -> _Found:
    """Raises: ConfigError, where the service has no such model, or does not train it so; BackendError."""
    models = list_models(service)
    named = as_listed(models, base)
    model, notes = find_model(models, named)
    if named.model != base.model:
        notes = [f"{base.model} is listed as {named.model}, which is sent", *notes]
    offer = judge(config.openai, named, model, None if account is None else account.region)
    return _Found(named, model, [*notes, *offer.notes], offer)


def _auto_deploys(config: RunConfig) -> bool:
    return config.backend.auto_deploy and config.openai.service == "azure"


def _plan(
    config: RunConfig,
    found: _Found,
    checked: ServiceData,
    service: FineTuningService,
    rows: list[tuple[str, str]],
    listed: RegionPrices | None,
    auto: AutoDeployment | None,
) -> Plan[Manifest]:
    base, doubts = found.base, found.offer.doubts
    comparison = plan_comparison(config, checked.report.validation, base.family)
    config = _resolved(config, checked, comparison, base.family)
    at_once = comparison if config.openai.service != "azure" else None  # on Azure nothing answers before a deployment
    prices = prices_of(base.family, config.openai, listed)
    item = None if at_once is None or service.is_ours else at_once.quoted(prices)
    quote = quote_run(config, prices, len(checked.report.conversations), checked.train, item)
    manifest = _manifest(config, base, checked, service, quote, prices, compares=at_once is not None)
    if auto is not None:
        compared = comparison if config.openai.base_deployment else None
        items, notes = (*quote.items, *auto.items(compared)), (*quote.notes, *auto.notes)
        quote = replace(quote, items=items, running=(STOPPED_BY,), notes=notes)
        rows, config, doubts = [*rows, *auto.rows], auto.within(config), (*doubts, *auto.chosen.offer.doubts)
    files = {upload.role: f"file-id-of-{upload.role}" for upload in checked.uploads}
    body = job_body(config, base.model, files, {"trainer_run": "…", TOKEN_KEY: "…"})
    text = f"the job as it will be created:\n{json.dumps(body, indent=2, ensure_ascii=False)}"
    return Plan(config, quote, rows, manifest, text, doubts=doubts)


def _manifest(
    config: RunConfig,
    base: ServiceBase,
    checked: ServiceData,
    service: FineTuningService,
    quote: Quote,
    prices: ServicePrices,
    compares: bool,
) -> Manifest:
    """The manifest of a run that is about to start; its token is new. `compares`: its comparison is in the quote."""
    rows, settings = checked.report, config.openai
    quoted = "" if quote.total is None else f", quoted at {quote.total:,.2f} {quote.currency}"
    launch = Launch(
        token=new_token(),
        family=base.family,
        uploads=checked.uploads,
        tokens_counted=checked.train.how,
        bills="by what the server's machine costs its owner, until it ends"
        if service.is_ours
        else f"by the trained token until it ends{quoted}",
        comparison_quoted=compares,
        training_price=prices.training,
        dearest_price=prices.dearest("training"),
    )
    return Manifest(
        **shared(checked.files, rows.conversations, len(rows.validation), PACKAGES),
        base=PinnedBase(base.model, None, None),
        parent=None if base.parent is None else ParentRun(*base.parent),
        template_sha256=None,
        num_tokens=checked.train.num_tokens,
        num_supervised_tokens=checked.train.num_supervised,
        seed=seed_of(config),
        dtype="the service's own numbers",
        device=f"{service.place}, {settings.training_type or settings.service}",
        launch=launch,
    )


def _resolved(config: RunConfig, checked: ServiceData, comparison: ComparisonPlan | None, family: str) -> RunConfig:
    """The config without `auto`, but for the numbers that the service chooses: those come with its job."""
    _, measure = encoding_for(family)
    limits = comparison.limits if comparison else resolve_limits(config.evaluation, checked.report.validation, measure)
    data = config.data.model_copy(update={"max_length": checked.max_length})
    return config.model_copy(update={"data": data, "evaluation": limits})


def _rows(
    config: RunConfig,
    checked: ServiceData,
    service: FineTuningService,
    found: _Found,
    account: AccountFacts | None,
) -> list[tuple[str, str]]:
    training, base = config.training, found.base
    epochs = f"auto, by the service's rule {epochs_of(config, len(checked.report.conversations))}"
    numbers = f"epochs {epochs if training.n_epochs == 'auto' else training.n_epochs}, batch size {training.batch_size}"
    rows = [
        ("model", base.model + _until(found.model)),
        ("service", f"{service.place}; {residency(config.openai)}"),
        ("who", who_can_use_it(config)),
        ("data", _data(checked)),
        ("method", _method(config)),
        ("plan", f"{numbers}, learning rate multiplier {training.learning_rate_multiplier}, seed {training.seed}"),
    ]
    if service.is_ours:
        rows.append(("cost", "the server's owner pays, and has set the cap: a job above it is refused with its quote"))
    if lacking := without_validation(config.data):
        rows.append(("held out", lacking))
    if account:
        rows.insert(2, ("resource", account.text))
        if (deploys := outlook(find_in_catalog(base.family), account.region, account.quotas)) is not None:
            rows.append(deploys)
    if base.parent is not None:
        step = "" if base.parent[1] is None else f" at step {base.parent[1]:,}"
        rows.insert(1, ("from", f"run {base.parent[0]}{step}, trained further"))
    findings = checked.report.findings
    rows += [("contradiction", doubt) for doubt in found.offer.doubts]
    notes = [*found.notes, *notes_on_length(checked), *notes_on_model(checked, base.family), *map(str, findings)]
    rows += [("warning", note) for note in notes[:SHOWN_FINDINGS]]
    if (hidden := len(notes) - SHOWN_FINDINGS) > 0:
        rows.append(("", f"and {hidden:,} more: trainer data check FILE"))
    return rows


def _method(config: RunConfig) -> str:
    if not learns_from_pairs(config.training.method):
        return "supervised, on chat rows"
    return f"dpo, on preference rows, beta {config.training.dpo.beta}"


def _until(model: ServiceModel | None) -> str:
    if model is None:
        return ""
    ends = [("tuned", model.tuning_until), ("answers", model.inference_until)]
    words = ", ".join(f"{what} until {day}" for what, day in ends if day is not None)
    return f" ({words})" if words else ""


def _data(checked: ServiceData) -> str:
    report, train = checked.report, checked.train
    return (
        f"{len(report.conversations):,} rows to train on, {len(report.validation):,} to validate; "
        f"{train.num_tokens:,} tokens ({train.how}); longest row {max(train.longest, checked.validation.longest):,}"
    )
