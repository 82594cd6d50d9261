"""`model.base` of this backend, and the models that the service lists: what it tunes, for whom, and until when."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from trainer.backends.contract import ServiceModel
from trainer.backends.openai.catalog import DATED, catalog, family_of, find_in_catalog
from trainer.backends.openai.client import OPENAI_URL, FineTuningService, Record, address
from trainer.backends.openai.price_list import known_families
from trainer.backends.openai.training_types import FLAGS
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError, quoted, similar
from trainer.kinds import Method, is_service
from trainer.runs import Run
from trainer.runs.checkpoint import STATE, folder_of, list_checkpoints
from trainer.runs.files import read_record

if TYPE_CHECKING:
    import httpx2
    from openai import OpenAI

SHOWN = 8

# https://developers.openai.com/api/docs/deprecations
NO_NEW_JOBS = date(2027, 1, 6)


@dataclass(frozen=True, slots=True)
class ServiceBase:
    """The model that is tuned. `family` names its prices and its encoding."""

    model: str  # as the service knows it
    family: str
    parent: tuple[str, int | None] | None = None  # the run and the step that it comes from

    @property
    def is_tuned(self) -> bool:
        """True if fine-tuning made it, so that it is deployed and listed under a name of its own."""
        if self.model.startswith("builtin:"):
            return False
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
    return ServiceBase(checkpoint_model(run, step), family, (run.name, int(step) if step.isdecimal() else None))


def checkpoint_model(run: Run, name: str) -> str:
    """The model that the service made of a checkpoint, named by its step, its id or that model.

    Raises: ConfigError, when the run has no such checkpoint.
    """
    return str(_checkpoint(run, name)["model"])


def checkpoint_id(run: Run, name: str) -> str:
    """The service's id of a checkpoint, which is named as for `checkpoint_model`. Raises: ConfigError."""
    return str(_checkpoint(run, name)["id"])


def _checkpoint(run: Run, name: str) -> dict[str, Any]:
    found = {checkpoint.step: _record(run, checkpoint.step) for checkpoint in list_checkpoints(run.checkpoints)}
    for step, record in found.items():
        if name.removeprefix("step-").lstrip("0") == str(step) or name in (record.get("id"), record.get("model")):
            return record
    known = ", ".join(map(str, found)) or "none so far"
    raise ConfigError(
        f"run {run.name!r}: has no checkpoint {name!r}, expected one of {known}; list them with: "
        f"trainer checkpoints {run.path}"
    )


def _record(run: Run, step: int) -> dict[str, Any]:
    return read_record(folder_of(run.checkpoints, step) / STATE)


def who_can_use_it(config: RunConfig, today: date | None = None) -> str:
    """Say who can still tune models there, as both services have announced it."""
    today = today or datetime.now(UTC).date()
    if config.openai.service == "azure":
        return _who_on_azure(config.model.base, today)
    if address(config.openai) != OPENAI_URL:
        return f"whoever has a key of {quoted(address(config.openai))}"
    if today >= NO_NEW_JOBS:
        return f"api.openai.com has taken no new jobs since {NO_NEW_JOBS}: expect to be refused"
    return (
        f"api.openai.com takes new jobs until {NO_NEW_JOBS}, and only of organizations that have tuned a model and "
        "used one within 60 days"
    )


def _who_on_azure(model: str, today: date) -> str:
    row = find_in_catalog(model)
    if row is None:
        return "Azure tunes models of OpenAI for existing customers only as they near their end, open ones for everyone"
    if row.tuning_until is None:
        return f"Azure tunes {row.name} for everyone, and has announced no end"
    others = "no more since" if row.new_customers_until and row.new_customers_until <= today else "until"
    return (
        f"Azure tunes {row.name} for existing customers until at least {row.tuning_until}, for others {others} "
        f"{row.new_customers_until} ({row.sources['tuning_until']})"
    )


def list_models(service: FineTuningService) -> list[ServiceModel]:
    """Every model that the credential sees."""

    def page(client: "OpenAI", query: Mapping[str, Any]) -> "httpx2.Response":
        return client.models.with_raw_response.list().http_response  # it comes whole, and takes no query

    found = [_model(item) for item in service.listed(page, "reading the list of models")]
    if service.is_ours:  # it lists what its owner lets people tune, and nothing else
        found = [replace(model, can_tune=True) for model in found]
    return sorted(found, key=lambda model: model.name)


def with_table(model: ServiceModel) -> ServiceModel:
    """The model with what only the table of models knows of it; a day that the service names stays."""
    row = find_in_catalog(model.name)
    if row is None:
        return model
    return replace(
        model,
        methods=row.methods,
        training_types=row.training_types,
        tuning_until=model.tuning_until or row.tuning_until,
        new_customers_until=row.new_customers_until,
        inference_until=model.inference_until or row.answers_until,
    )


def tunable(models: list[ServiceModel]) -> list[ServiceModel]:
    """Those that can be fine-tuned, or that are known to be where the service does not say."""
    return [model for model in models if model.can_tune or _is_known(model)]


def _is_known(model: ServiceModel) -> bool:
    """True if it is tuned although the service does not say so, or says the contrary."""
    row = find_in_catalog(model.name)
    if model.can_tune is None:
        return model.is_own or row is not None or family_of(model.name) in known_families()
    return row is not None and row.flag_is_wrong


def as_listed(models: list[ServiceModel], base: ServiceBase) -> ServiceBase:
    """The base by the name that this service lists: an open model's may end in a number of the service's own."""
    row = find_in_catalog(base.family)
    if row is None or base.is_tuned or any(model.name == base.model for model in models):
        return base
    names = [model.name for model in models if not model.is_own and find_in_catalog(model.name) is row]
    undated = [name for name in names if not DATED.search(name)]
    return replace(base, model=undated[0]) if len(undated) == 1 else base


def find_model(models: list[ServiceModel], base: ServiceBase) -> tuple[ServiceModel | None, list[str]]:
    """The base as the service lists it, and what a person should know of it.

    Raises: ConfigError, when it is not there or cannot be tuned.
    """
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
    if found.can_tune is False and find_in_catalog(base.family) is None:
        known = ", ".join(names[:SHOWN]) or "none"
        raise ConfigError(f"model.base: {base.model!r} cannot be fine-tuned here, expected one of {known}")
    return found, [] if found.can_tune else _unsaid(base)


def refuse_method(config: RunConfig, base: ServiceBase) -> None:
    """Raises: ConfigError, where the table of models says that the base is not trained so."""
    row, method = find_in_catalog(base.family), config.training.method
    if row is None or method in row.methods:
        return
    others = ", ".join(model.name for model in catalog().values() if method in model.methods)
    known = [name for name in row.methods if name in get_args(Method)]
    takes = " and ".join(map(repr, known)) or "none that this trainer sends"
    own = f"set {' or '.join(known)}, or " if known else ""
    source = row.sources["methods"]
    raise ConfigError(
        f"training.method: is {method!r}, and {row.name} takes {takes} ({source}), expected a model that takes it; "
        f"{own}choose one of {others}"
    )


def _unsaid(base: ServiceBase) -> list[str]:
    if base.is_tuned or base.family in known_families():
        return []
    return [f"the service does not say whether {base.model} can be fine-tuned"]


def _model(item: Record) -> ServiceModel:
    name = str(item.get("id") or "")
    capabilities, ends = item.get("capabilities") or {}, item.get("deprecation") or {}
    flags = {kind: capabilities[flag] for flag, kind in FLAGS.items() if isinstance(capabilities.get(flag), bool)}
    return ServiceModel(
        name=name,
        can_tune=any(flags.values()) if flags else None,
        tuning_until=_day(ends.get("fine_tune")),
        inference_until=_day(ends.get("inference") or item.get("shutdown_date")),
        lifecycle=str(item.get("lifecycle_status") or ""),
        is_own=name.startswith("ft:") or ".ft-" in name,
        training_flags=flags,
    )


def _day(value: object) -> date | None:
    """A day from seconds since 1970 or from text."""
    try:
        if isinstance(value, (int, float)) and value > 0:
            return datetime.fromtimestamp(value, UTC).date()
        return date.fromisoformat(str(value)[:10]) if value else None
    except (ValueError, OverflowError, OSError):
        return None
