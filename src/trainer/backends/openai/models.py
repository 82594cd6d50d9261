"""`model.base` of this backend, and the models that the service lists: what it tunes, for whom, and until when."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.backends.contract import ServiceModel
from trainer.backends.openai.client import OPENAI_URL, FineTuningService, Record, address
from trainer.backends.openai.prices import family_of, known_families
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError, quoted, similar
from trainer.kinds import is_service
from trainer.runs import Run
from trainer.runs.checkpoint import STATE, folder_of, list_checkpoints
from trainer.runs.files import read_record

if TYPE_CHECKING:
    import httpx2
    from openai import OpenAI

SHOWN = 8

# https://developers.openai.com/api/docs/deprecations
NO_NEW_JOBS = date(2027, 1, 6)
# https://learn.microsoft.com/azure/foundry/openai/concepts/model-retirements
AZURE_UNTIL = date(2027, 4, 1)


@dataclass(frozen=True, slots=True)
class ServiceBase:
    """The model that is tuned. `family` names its prices and its encoding."""

    model: str  # as the service knows it
    family: str
    parent: tuple[str, int | None] | None = None  # the run and the step that it comes from

    @property
    def is_tuned(self) -> bool:
        """Whether it was made by fine-tuning, and is deployed and listed under a name of its own."""
        return self.parent is not None or ":" in self.model or ".ft-" in self.model or self.model.startswith("ft")


def find_base(name: str) -> ServiceBase:
    """The model that a config's `model.base` names. Raises: ConfigError, for a run without such a model."""
    folder, _, step = name.partition("@")
    if not (Path(folder) / "config.yaml").is_file():
        return ServiceBase(name, family_of(name))
    run = Run(Path(folder))
    if not is_service(run.backend):
        raise ConfigError(
            f"model.base: run {run.name!r} was trained on the {run.backend} backend, expected one of the openai "
            "backend, whose model the service keeps; name another"
        )
    manifest = run.find_manifest()
    launch = None if manifest is None else manifest.launch
    family = family_of(run.config().model.base) if launch is None else launch.family
    if not step:
        model = run.status().get("fine_tuned_model")
        if not model:
            raise ConfigError(
                f"model.base: run {run.name!r} is {run.state}, expected one that has succeeded; "
                "finish it or name a checkpoint as RUN@STEP"
            )
        return ServiceBase(str(model), family, (run.name, None))
    return ServiceBase(checkpoint_model(run, step), family, (run.name, int(step) if step.isdigit() else None))


def checkpoint_model(run: Run, name: str) -> str:
    """The model that the service made of a checkpoint, named by its step, its id or that model.

    Raises: ConfigError, when the run has no such checkpoint.
    """
    found = {checkpoint.step: _record(run, checkpoint.step) for checkpoint in list_checkpoints(run.checkpoints)}
    for step, record in found.items():
        if name.removeprefix("step-").lstrip("0") == str(step) or name in (record.get("id"), record.get("model")):
            return str(record["model"])
    known = ", ".join(map(str, found)) or "none so far"
    raise ConfigError(
        f"run {run.name!r}: has no checkpoint {name!r}, expected one of {known}; list them with: "
        f"trainer checkpoints {run.path}"
    )


def _record(run: Run, step: int) -> dict[str, Any]:
    return read_record(folder_of(run.checkpoints, step) / STATE)


def who_can_use_it(config: RunConfig, today: date | None = None) -> str:
    """Who can still have models tuned there, as both services have announced it."""
    today = today or datetime.now(UTC).date()
    if config.openai.service == "azure":
        return (
            f"Azure OpenAI tunes models for existing customers until at least {AZURE_UNTIL:%B %Y}, for others only as "
            "long as the base model lives"
        )
    if address(config.openai) != OPENAI_URL:
        return f"whoever has a key of {quoted(address(config.openai))}"
    if today >= NO_NEW_JOBS:
        return f"api.openai.com has taken no new jobs since {NO_NEW_JOBS}: expect to be refused"
    return (
        f"api.openai.com takes new jobs until {NO_NEW_JOBS}, and only of organizations that have tuned a model and "
        "used one within 60 days"
    )


def list_models(service: FineTuningService) -> list[ServiceModel]:
    """Every model that the credential sees."""

    def page(client: "OpenAI", query: Mapping[str, Any]) -> "httpx2.Response":
        return client.models.with_raw_response.list().http_response  # it comes whole, and takes no query

    found = [_model(item) for item in service.listed(page, "reading the list of models")]
    return sorted(found, key=lambda model: model.name)


def tunable(models: list[ServiceModel]) -> list[ServiceModel]:
    """Those that can be fine-tuned, or that are known to be where the service does not say."""
    return [
        model
        for model in models
        if model.can_tune or (model.can_tune is None and (model.is_own or family_of(model.name) in known_families()))
    ]


def find_model(
    models: list[ServiceModel], base: ServiceBase, today: date | None = None
) -> tuple[ServiceModel | None, list[str]]:
    """The base as the service lists it, and what a person should know of it.

    Raises: ConfigError, when it is not there or cannot be tuned.
    """
    today = today or datetime.now(UTC).date()
    found = next((model for model in models if model.name == base.model), None)
    names = [model.name for model in tunable(models)]
    if found is None:
        if base.is_tuned:  # checkpoints are not listed
            return None, [f"{base.model} is not in the service's list of models, which does not name checkpoints"]
        known = ", ".join(names[:SHOWN]) or "none"
        raise ConfigError(
            f"model.base: {base.model!r} is not a model of this service{similar(base.model, names)}; "
            f"it tunes {known}; see all with: trainer models"
        )
    if found.can_tune is False:
        known = ", ".join(names[:SHOWN]) or "none"
        raise ConfigError(f"model.base: {base.model!r} cannot be fine-tuned here, expected one of {known}")
    if found.tuning_until is not None and found.tuning_until <= today:
        raise ConfigError(
            f"model.base: fine-tuning of {base.model!r} has ended on {found.tuning_until}, expected a model that is "
            f"still tuned: {', '.join(names[:SHOWN]) or 'none'}"
        )
    return found, [] if found.can_tune else _unsaid(base)


def _unsaid(base: ServiceBase) -> list[str]:
    if base.is_tuned or base.family in known_families():
        return []
    return [f"the service does not say whether {base.model} can be fine-tuned"]


def _model(item: Record) -> ServiceModel:
    name = str(item.get("id") or "")
    capabilities, ends = item.get("capabilities") or {}, item.get("deprecation") or {}
    can_tune = capabilities.get("fine_tune")
    return ServiceModel(
        name=name,
        can_tune=can_tune if isinstance(can_tune, bool) else None,
        tuning_until=_day(ends.get("fine_tune")),
        inference_until=_day(ends.get("inference") or item.get("shutdown_date")),
        lifecycle=str(item.get("lifecycle_status") or ""),
        is_own=name.startswith("ft:") or ".ft-" in name,
    )


def _day(value: object) -> date | None:
    """A day from seconds since 1970 or from text."""
    try:
        if isinstance(value, (int, float)) and value > 0:
            return datetime.fromtimestamp(value, UTC).date()
        return date.fromisoformat(str(value)[:10]) if value else None
    except (ValueError, OverflowError, OSError):
        return None
