"""What the service says can be fine-tuned, and until when."""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from trainer.backends.contract import ServiceModel
from trainer.backends.openai.bases import Base
from trainer.backends.openai.client import Record, Service
from trainer.backends.openai.prices import family_of, known_families
from trainer.errors import ConfigError, similar

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2
    from openai import OpenAI

SHOWN = 8


def list_models(service: Service) -> list[ServiceModel]:
    """Every model that the credential sees."""

    def page(client: "OpenAI", query: "Mapping[str, Any]") -> "httpx2.Response":
        return client.models.with_raw_response.list().http_response  # it comes whole, and takes no query

    found = [_model(item, service) for item in service.listed(page, "reading the list of models")]
    return sorted(found, key=lambda model: model.name)


def tunable(models: list[ServiceModel]) -> list[ServiceModel]:
    """Those that can be fine-tuned, or that are known to be where the service does not say."""
    return [
        model
        for model in models
        if model.can_tune or (model.can_tune is None and (model.is_own or family_of(model.name) in known_families()))
    ]


def find_model(
    models: list[ServiceModel], base: Base, today: date | None = None
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


def _unsaid(base: Base) -> list[str]:
    if base.is_tuned or base.family in known_families():
        return []
    return [f"the service does not say whether {base.model} can be fine-tuned"]


def _model(item: Record, service: Service) -> ServiceModel:
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
