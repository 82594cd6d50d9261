"""Everything that can be verified without creating anything."""

from dataclasses import dataclass
from typing import Any

from trainer.backends.http import Say
from trainer.backends.openai.bases import Base, find_base
from trainer.backends.openai.client import Service
from trainer.backends.openai.data import Checked, check_data, notes_on_length
from trainer.backends.openai.fetch import fetch_files
from trainer.backends.openai.jobs import job_body, read_jobs, shown
from trainer.backends.openai.limits import Exam, plan_exam
from trainer.backends.openai.manifest import build_manifest
from trainer.backends.openai.models import Model, find_model, list_models
from trainer.backends.openai.quoting import epochs_of, quote_run
from trainer.backends.openai.resource import look_at_resource
from trainer.backends.openai.settings import refuse_settings, residency, resolve_service, who_can_use_it
from trainer.backends.remote import Plan
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError

SHOWN_FINDINGS = 5


@dataclass(frozen=True, slots=True)
class Details:
    """What a launch needs beside the config."""

    manifest: dict[str, Any]
    exam: Exam | None


def check(config: RunConfig, say: Say) -> Plan:
    """Settings, data, credential, model and price. Raises: ConfigError, DataError, BackendError, MissingDependency."""
    refuse_settings(config)
    config = resolve_service(config)
    base, service = find_base(config.model.base), Service(config.openai)
    fetch_files(config, say)
    checked = check_data(config, base.family)
    resource = look_at_resource(config.openai, say) if config.openai.service == "azure" else None
    if resource and resource.problems:
        raise ConfigError(*resource.problems)
    read_jobs(service, say)
    model, notes = find_model(list_models(service), base)
    exam = plan_exam(config, checked.report.validation, base.family)
    if exam is not None:
        config = config.model_copy(update={"evaluation": exam.limits})
    at_once = (
        exam if config.openai.service == "openai" else None
    )  # on Azure there is nothing to ask before a deployment
    quote = quote_run(config, base, checked, at_once)
    rows = _rows(config, base, checked, model, service, notes)
    if resource:
        rows.insert(2, ("resource", resource.told))
    files = {upload.role: f"file-id-of-{upload.role}" for upload in checked.uploads}
    body = job_body(config, base.model, files, {"trainer_run": "…", "trainer_token": "…"})
    manifest = build_manifest(config, base, checked, service) | {"comparison_quoted": at_once is not None}
    return Plan(config, quote, rows, f"the job as it will be created:\n{shown(body)}", Details(manifest, exam))


def _rows(
    config: RunConfig, base: Base, checked: Checked, model: Model | None, service: Service, notes: list[str]
) -> list[tuple[str, str]]:
    training = config.training
    epochs = f"auto, by the service's rule {epochs_of(config, checked)}"
    numbers = f"epochs {epochs if training.n_epochs == 'auto' else training.n_epochs}, batch size {training.batch_size}"
    rows = [
        ("model", base.model + _until(model)),
        ("service", f"{service.place}; {residency(config)}"),
        ("who", who_can_use_it(config)),
        ("data", _data(checked)),
        ("plan", f"{numbers}, learning rate multiplier {training.learning_rate_multiplier}, seed {training.seed}"),
    ]
    if base.parent is not None:
        step = "" if base.parent[1] is None else f" at step {base.parent[1]:,}"
        rows.insert(1, ("from", f"run {base.parent[0]}{step}, trained further"))
    findings = checked.report.findings
    notes = [*notes, *notes_on_length(checked), *map(str, findings)]
    rows += [("warning", note) for note in notes[:SHOWN_FINDINGS]]
    if (hidden := len(notes) - SHOWN_FINDINGS) > 0:
        rows.append(("", f"and {hidden:,} more: trainer data check FILE"))
    return rows


def _until(model: Model | None) -> str:
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
