"""Everything that can be verified without creating anything: settings, data, resource, access, model, price."""

import json
from collections.abc import Iterator
from contextlib import nullcontext

from trainer.backends.contract import Plan, ServiceModel
from trainer.backends.http import Say, hurried
from trainer.backends.openai.account import describe_account
from trainer.backends.openai.client import FineTuningService
from trainer.backends.openai.data import (
    CheckedData,
    check_data,
    fetch_files,
    missing_files,
    notes_on_length,
    refuse_urls,
)
from trainer.backends.openai.held_out import ComparisonPlan, plan_comparison, resolve_limits, seed_of
from trainer.backends.openai.jobs import job_body, read_jobs
from trainer.backends.openai.models import ServiceBase, find_base, find_model, list_models, who_can_use_it
from trainer.backends.openai.names import TOKEN_KEY, new_token
from trainer.backends.openai.prices import encoding_for, epochs_of, family_of, prices_of, quote_run
from trainer.backends.quote import Quote
from trainer.config.conflicts import foreign_settings, is_default
from trainer.config.schema import RunConfig
from trainer.data.read.sources import without_validation
from trainer.errors import Attempts, ConfigError
from trainer.runs.manifest import Launch, Manifest, ParentRun, PinnedBase
from trainer.training.manifest import shared

BOUNDS = {"n_epochs": 50, "batch_size": 256, "seed": 2_147_483_647}  # of the API's own document
NO_LEARNING_RATE = "the service has no such setting; use learning_rate_multiplier"
REASONS = {  # by section; azureml may stand beside openai, as it always may
    "model": "the service keeps its model itself; remove it, or use another backend",
    "lora": "the service chooses how it tunes; remove it, or use another backend",
    "training": "the service has no such setting; remove it, or use another backend",
    "memory": "the training runs on machines of the service; remove it",
    "tracking": "the service reports to nobody but trainer logs and show; remove it",
    "openai": "only Azure has it; remove it, or set openai.service to azure",
}
SHOWN_FINDINGS = 5
PACKAGES = ("openai", "azure-identity", "azure-mgmt-cognitiveservices", "tiktoken")


def check(config: RunConfig, say: Say) -> Plan[Manifest]:
    """Settings, data, credential, model and price; all that is wrong at once.

    Raises: ConfigError, DataError, BackendError, MissingDependency.
    """
    attempts = Attempts()
    attempts.make(refuse_settings, config)
    config = resolve_service(config)
    base = attempts.make(find_base, config.model.base)
    family = family_of(config.model.base) if base is None else base.family
    checked = attempts.make(_check_rows, config, family, not attempts.errors, say)
    with hurried() if attempts.errors else nullcontext():  # what is wrong already is not kept waiting
        account = attempts.make(describe_account, config.openai, say) if config.openai.service == "azure" else None
        service = attempts.make(_reach, config, say)
        found = attempts.make(lambda: find_model(list_models(service), base)) if base and service else None
    attempts.end()
    assert base is not None
    assert checked is not None
    assert service is not None
    assert found is not None
    return _plan(config, base, checked, service, _rows(config, base, checked, service, found, account))


def refuse_settings(config: RunConfig) -> None:
    """Raises: ConfigError, with every setting that the service has no word for."""
    if problems := [*_foreign(config), *_values(config)]:
        raise ConfigError(*problems)


def resolve_service(config: RunConfig) -> RunConfig:
    """The config with the training type that is sent: on Azure always one, as a job without is refused oddly."""
    if config.openai.service != "azure" or config.openai.training_type is not None:
        return config
    return config.model_copy(update={"openai": config.openai.model_copy(update={"training_type": "Standard"})})


def residency(config: RunConfig) -> str:
    """Where the data goes."""
    match config.openai.training_type:
        case "Standard":
            return "Standard: training data and weights stay in the resource's region"
        case "GlobalStandard":
            return "GlobalStandard: may be trained in any region; weights are kept in the resource's"
        case "Developer":
            return "Developer: may be trained in any region, on spare capacity; may be paused and goes on by itself"
    return "the service's own"


def _foreign(config: RunConfig) -> Iterator[str]:
    """Settings that only other backends, or the other service, can honor."""
    for section, name in foreign_settings(config):
        if section in REASONS and not is_default(config, section, name):
            reason = NO_LEARNING_RATE if name == "learning_rate" else REASONS[section]
            yield f"{section}.{name}: is set, but {reason}"


def _values(config: RunConfig) -> Iterator[str]:
    for name, most in BOUNDS.items():
        value = getattr(config.training, name)
        if isinstance(value, int) and value > most:
            yield f"training.{name}: is {value:,}, expected at most {most:,} on the openai backend; lower it"
    if config.data.on_overlength != "error":
        yield (
            f"data.on_overlength: is {config.data.on_overlength!r}, expected 'error' on the openai backend, which "
            "uploads the rows as they are; leave out or shorten them in the file"
        )
    for source in config.data.train_sources:
        if source.weight != 1:
            yield (
                f"data.train: {source.path!r} has weight {source.weight:g}, expected 1 on the openai backend; repeat "
                "its rows in the file"
            )


def _check_rows(config: RunConfig, family: str, clean: bool, say: Say) -> CheckedData | None:
    """Files behind URLs are fetched for a config that is right so far: one that is refused leaves nothing behind."""
    refuse_urls(config)
    if clean:
        fetch_files(config, say)
    elif missing_files(config):
        return None
    return check_data(config, family)


def _reach(config: RunConfig, say: Say) -> FineTuningService:
    service = FineTuningService(config.openai)
    read_jobs(service, say)
    return service


def _plan(
    config: RunConfig, base: ServiceBase, checked: CheckedData, service: FineTuningService, rows: list[tuple[str, str]]
) -> Plan[Manifest]:
    comparison = plan_comparison(config, checked.report.validation, base.family)
    config = _resolved(config, checked, comparison, base.family)
    at_once = comparison if config.openai.service == "openai" else None  # on Azure nothing answers before a deployment
    prices = prices_of(base.family, config.openai)
    item = None if at_once is None else at_once.quoted(prices)
    quote = quote_run(config, prices, len(checked.report.conversations), checked.train, item)
    files = {upload.role: f"file-id-of-{upload.role}" for upload in checked.uploads}
    body = job_body(config, base.model, files, {"trainer_run": "…", TOKEN_KEY: "…"})
    text = f"the job as it will be created:\n{json.dumps(body, indent=2, ensure_ascii=False)}"
    manifest = _manifest(config, base, checked, service, quote, compares=at_once is not None)
    return Plan(config, quote, rows, manifest, text)


def _manifest(
    config: RunConfig,
    base: ServiceBase,
    checked: CheckedData,
    service: FineTuningService,
    quote: Quote,
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
        bills=f"by the trained token until it ends{quoted}",
        comparison_quoted=compares,
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


def _resolved(config: RunConfig, checked: CheckedData, comparison: ComparisonPlan | None, family: str) -> RunConfig:
    """The config without `auto`, but for the numbers that the service chooses: those come with its job."""
    _, measure = encoding_for(family)
    limits = comparison.limits if comparison else resolve_limits(config.evaluation, checked.report.validation, measure)
    data = config.data.model_copy(update={"max_length": checked.max_length})
    return config.model_copy(update={"data": data, "evaluation": limits})


def _rows(
    config: RunConfig,
    base: ServiceBase,
    checked: CheckedData,
    service: FineTuningService,
    found: tuple[ServiceModel | None, list[str]],
    account: str | None,
) -> list[tuple[str, str]]:
    training, (model, notes) = config.training, found
    epochs = f"auto, by the service's rule {epochs_of(config, len(checked.report.conversations))}"
    numbers = f"epochs {epochs if training.n_epochs == 'auto' else training.n_epochs}, batch size {training.batch_size}"
    rows = [
        ("model", base.model + _until(model)),
        ("service", f"{service.place}; {residency(config)}"),
        ("who", who_can_use_it(config)),
        ("data", _data(checked)),
        ("plan", f"{numbers}, learning rate multiplier {training.learning_rate_multiplier}, seed {training.seed}"),
    ]
    if lacking := without_validation(config.data):
        rows.append(("held out", lacking))
    if account:
        rows.insert(2, ("resource", account))
    if base.parent is not None:
        step = "" if base.parent[1] is None else f" at step {base.parent[1]:,}"
        rows.insert(1, ("from", f"run {base.parent[0]}{step}, trained further"))
    findings = checked.report.findings
    notes = [*notes, *notes_on_length(checked), *map(str, findings)]
    rows += [("warning", note) for note in notes[:SHOWN_FINDINGS]]
    if (hidden := len(notes) - SHOWN_FINDINGS) > 0:
        rows.append(("", f"and {hidden:,} more: trainer data check FILE"))
    return rows


def _until(model: ServiceModel | None) -> str:
    if model is None:
        return ""
    ends = [("tuned", model.tuning_until), ("answers", model.inference_until)]
    told = ", ".join(f"{what} until {day}" for what, day in ends if day is not None)
    return f" ({told})" if told else ""


def _data(checked: CheckedData) -> str:
    report, train = checked.report, checked.train
    return (
        f"{len(report.conversations):,} rows to train on, {len(report.validation):,} to validate; "
        f"{train.num_tokens:,} tokens ({train.how}); longest row {max(train.longest, checked.validation.longest):,}"
    )
