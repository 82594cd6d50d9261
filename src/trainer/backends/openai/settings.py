"""Settings that this backend cannot honour, each with what to do instead; and who can still use the service."""

from collections.abc import Iterator
from datetime import UTC, date, datetime

from pydantic import BaseModel

from trainer.backends.openai.client import OPENAI_URL, address
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError, quoted

HONOURED = frozenset({"method", "n_epochs", "batch_size", "learning_rate_multiplier", "seed"})
BOUNDS = {"n_epochs": 50, "batch_size": 256, "seed": 2_147_483_647}  # of the API's own document
AZURE_ONLY = ("api_version", "training_type", "base_deployment", "subscription", "resource_group", "account")

# https://developers.openai.com/api/docs/deprecations
NO_NEW_JOBS = date(2027, 1, 6)
# https://learn.microsoft.com/azure/foundry/openai/concepts/model-retirements
AZURE_UNTIL = date(2027, 4, 1)


def refuse_settings(config: RunConfig) -> None:
    """Raises: ConfigError, with every setting that the service has no word for."""
    problems = [*_foreign(config), *_values(config), *_of_service(config)]
    if problems:
        raise ConfigError(*problems)


def _foreign(config: RunConfig) -> Iterator[str]:
    """What only a training of one's own can do."""
    for name in _changed(config.lora):
        yield f"lora.{name}: is set, but the service chooses how it tunes; remove it, or use another backend"
    for name in (name for name in _changed(config.model) if name != "base"):
        yield f"model.{name}: is set, but the service keeps its model itself; remove it, or use another backend"
    for name in _changed(config.memory):
        yield f"memory.{name}: is set, but the training runs on machines of the service; remove it"
    for name in _changed(config.tracking):
        yield f"tracking.{name}: is set, but the service reports to nobody but trainer logs and show; remove it"
    for name in (name for name in _changed(config.training) if name not in HONOURED):
        advice = "use learning_rate_multiplier" if name == "learning_rate" else "remove it, or use another backend"
        yield f"training.{name}: is set, but the service has no such setting; {advice}"


def _changed(section: BaseModel) -> Iterator[str]:
    """The fields that differ from their default; a run's config writes all of them down."""
    for name, field in type(section).model_fields.items():
        if getattr(section, name) != field.get_default(call_default_factory=True):
            yield name


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


def _of_service(config: RunConfig) -> Iterator[str]:
    settings = config.openai
    if settings.service == "openai":
        for name in AZURE_ONLY:
            if getattr(settings, name) is not None:
                yield f"openai.{name}: is set, but only Azure has it; remove it, or set openai.service to azure"


def resolve_service(config: RunConfig) -> RunConfig:
    """The config with the training type that is sent: on Azure always one, as a job without is refused oddly."""
    if config.openai.service != "azure" or config.openai.training_type is not None:
        return config
    return config.model_copy(update={"openai": config.openai.model_copy(update={"training_type": "Standard"})})


def who_can_use_it(config: RunConfig, today: date | None = None) -> str:
    """For whom the service still tunes models, as of what both have announced."""
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
