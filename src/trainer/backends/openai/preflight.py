"""Everything that can be verified without creating anything."""

from contextlib import nullcontext
from dataclasses import dataclass

from trainer.backends.contract import Plan, ServiceModel
from trainer.backends.http import Say, hurried
from trainer.backends.openai.bases import Base, find_base
from trainer.backends.openai.client import Service
from trainer.backends.openai.data import Checked, check_data, notes_on_length
from trainer.backends.openai.fetch import fetch_files, missing_files, refuse_urls
from trainer.backends.openai.jobs import job_body, read_jobs, shown
from trainer.backends.openai.limits import Exam, plan_exam, resolve_limits
from trainer.backends.openai.manifest import build_manifest
from trainer.backends.openai.models import find_model, list_models
from trainer.backends.openai.prices import family_of
from trainer.backends.openai.quoting import epochs_of, quote_run
from trainer.backends.openai.resource import look_at_resource
from trainer.backends.openai.settings import refuse_settings, residency, resolve_service, who_can_use_it
from trainer.backends.openai.tokens import encoding_for
from trainer.config.schema import RunConfig
from trainer.data.read.sources import without_validation
from trainer.errors import Attempts, ConfigError
from trainer.runs.manifest import Manifest

SHOWN_FINDINGS = 5


@dataclass(frozen=True, slots=True)
class TuningDetails:
    """What a launch needs beside the config."""

    manifest: Manifest
    exam: Exam | None


def check(config: RunConfig, say: Say) -> Plan[TuningDetails]:
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
        resource = attempts.make(_look_at_resource, config, say)
        service = attempts.make(_reach, config, say)
        found = attempts.make(_look_for, base, service) if base and service else None
    attempts.end()
    assert base is not None
    assert checked is not None
    assert service is not None
    assert found is not None
    return _plan(config, base, checked, service, _rows(config, base, checked, service, found, resource))


def _check_rows(config: RunConfig, family: str, clean: bool, say: Say) -> Checked | None:
    """Files behind URLs are fetched for a config that is right so far: one that is refused leaves nothing behind."""
    refuse_urls(config)
    if clean:
        fetch_files(config, say)
    elif missing_files(config):
        return None
    return check_data(config, family)


def _look_at_resource(config: RunConfig, say: Say) -> str | None:
    """What there is to tell of an Azure resource. Raises: ConfigError, with what is wrong with it."""
    if config.openai.service != "azure":
        return None
    resource = look_at_resource(config.openai, say)
    if resource.problems:
        raise ConfigError(*resource.problems)
    return resource.told


def _reach(config: RunConfig, say: Say) -> Service:
    service = Service(config.openai)
    read_jobs(service, say)
    return service


def _look_for(base: Base, service: Service) -> tuple[ServiceModel | None, list[str]]:
    return find_model(list_models(service), base)


def _plan(
    config: RunConfig, base: Base, checked: Checked, service: Service, rows: list[tuple[str, str]]
) -> Plan[TuningDetails]:
    exam = plan_exam(config, checked.report.validation, base.family)
    config = _resolved(config, checked, exam, base.family)
    at_once = exam if config.openai.service == "openai" else None  # on Azure nothing answers before a deployment
    quote = quote_run(config, base, checked, at_once)
    files = {upload.role: f"file-id-of-{upload.role}" for upload in checked.uploads}
    body = job_body(config, base.model, files, {"trainer_run": "…", "trainer_token": "…"})
    manifest = build_manifest(config, base, checked, service, quote, compares=at_once is not None)
    text = f"the job as it will be created:\n{shown(body)}"
    return Plan(config, quote, rows, TuningDetails(manifest, exam), text)


def _resolved(config: RunConfig, checked: Checked, exam: Exam | None, family: str) -> RunConfig:
    """The config without `auto`, but for the numbers that the service chooses: those come with its job."""
    _, measure = encoding_for(family)
    limits = exam.limits if exam else resolve_limits(config.evaluation, checked.report.validation, measure)
    data = config.data.model_copy(update={"max_length": checked.max_length})
    return config.model_copy(update={"data": data, "evaluation": limits})


def _rows(
    config: RunConfig,
    base: Base,
    checked: Checked,
    service: Service,
    found: tuple[ServiceModel | None, list[str]],
    resource: str | None,
) -> list[tuple[str, str]]:
    training, (model, notes) = config.training, found
    epochs = f"auto, by the service's rule {epochs_of(config, checked)}"
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
    if resource:
        rows.insert(2, ("resource", resource))
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


def _data(checked: Checked) -> str:
    report, train = checked.report, checked.train
    return (
        f"{len(report.conversations):,} rows to train on, {len(report.validation):,} to validate; "
        f"{train.num_tokens:,} tokens ({train.how}); longest row {max(train.longest, checked.validation.longest):,}"
    )
