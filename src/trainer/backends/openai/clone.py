"""A job of the service as settings and files, from which a run like it can be started."""

import re
from collections.abc import Mapping
from typing import Any

from trainer.backends.http import Say, found
from trainer.backends.openai.client import FineTuningService, Record
from trainer.backends.openai.jobs import METHODS, get_job, hyperparameters
from trainer.backends.openai.mirror import WHOLE
from trainer.backends.openai.training_types import type_of
from trainer.backends.openai.upload import read_content
from trainer.config.fields import SUFFIX
from trainer.config.openai import OpenAIConfig, WandbConfig
from trainer.errors import ConfigError
from trainer.runs.manifest import Role

FILES: dict[Role, str] = {"train": "training_file", "validation": "validation_file"}
IN_AZURE_NAME = re.compile(r"\.ft-[0-9a-f]{32}-(.+)$")
Sections = dict[str, dict[str, Any]]


def read_job(settings: OpenAIConfig, name: str, say: Say) -> tuple[FineTuningService, Record]:
    """The service and the job of that id. Raises: ConfigError, where there is none; BackendError."""
    service = FineTuningService(settings)

    job = found(lambda: get_job(service, name), f"reading the job {name}", say)
    if job is None:
        raise ConfigError(f"--from: {name!r} is not a job of {service.place}, expected one that is listed there")
    return service, job


def settings_of(job: Record, settings: OpenAIConfig, option: str = "--from") -> Sections:
    """The sections of a config that make such a job, but for its data; `method` stands there where the job tells it.

    Raises: ConfigError, for a job of a method that this trainer does not send; `option` has named the job.
    """
    numbers = {name: int(value) if name in WHOLE else value for name, value in hyperparameters(job).items()}
    beta = numbers.pop("beta", None)
    training: dict[str, Any] = _method(job, option) | numbers | ({} if beta is None else {"dpo": {"beta": beta}})
    if isinstance(seed := job.get("seed"), int) and not isinstance(seed, bool) and seed >= 0:
        training["seed"] = seed
    openai: dict[str, Any] = {"service": settings.service}
    if kind := type_of(job.get("trainingType")):
        openai["training_type"] = kind
    if wandb := _wandb(job):
        openai["wandb"] = wandb
    suffix = _suffix(job)
    run = {"suffix": suffix} if re.fullmatch(SUFFIX, suffix) else {}
    backend = {"kind": "openai"}
    sections = {"model": {"base": str(job.get("model"))}, "training": training, "backend": backend, "openai": openai}
    return sections | ({"run": run} if run else {})


def files_of(service: FineTuningService, job: Record, roles: "set[Role]", say: Say) -> dict[Role, bytes]:
    """The job's own rows. Raises: ConfigError, with every file that is gone; BackendError."""
    found: dict[Role, bytes] = {}
    problems = []
    for role in (role for role in FILES if role in roles):
        name = job.get(FILES[role])
        content = read_content(service, str(name), f"reading the file {name}", say) if name else None
        if content is not None:
            found[role] = content
        elif name or role == "train":
            option = "--data" if role == "train" else "--validation"
            problems.append(f"{option}: missing, and the job's {FILES[role]} {name} is gone; name a file of rows")
    if problems:
        raise ConfigError(*problems)
    return found


def _method(job: Record, option: str) -> dict[str, str]:
    method = job.get("method")
    word = method.get("type") if isinstance(method, Mapping) else None
    if word is None:
        return {}
    known = {theirs: ours for ours, theirs in METHODS.items()}
    if word not in known:
        raise ConfigError(
            f"{option}: the job {job['id']} was trained with {word!r}, expected {' or '.join(map(repr, known))}"
        )
    return {"method": known[word]}


def _suffix(job: Record) -> str:
    """The job's suffix, which most routes show in the name of its model only; empty for none."""
    model = str(job.get("fine_tuned_model") or "")
    parts = model.split(":")  # ft:BASE:ORGANIZATION:SUFFIX:ID
    named = IN_AZURE_NAME.search(model)
    told = job.get("user_provided_suffix") or job.get("suffix")
    return str(told or (named[1] if named else parts[3] if len(parts) == 5 else ""))


def _wandb(job: Record) -> dict[str, Any]:
    """The project that the job reports to; what is not known of it is left out."""
    for integration in job.get("integrations") or []:
        asked = integration.get("wandb") if isinstance(integration, Mapping) else None
        if isinstance(asked, Mapping) and asked.get("project"):
            return {name: asked[name] for name in WandbConfig.model_fields if asked.get(name)}
    return {}
