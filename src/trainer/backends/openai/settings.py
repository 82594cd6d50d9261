"""Settings that this backend cannot honour, each with what to do instead; and who can still use the service."""

from collections.abc import Iterator
from datetime import UTC, date, datetime

from trainer.backends.openai.client import OPENAI_URL, address
from trainer.config.conflicts import foreign_settings, is_default
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError, quoted

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

# https://developers.openai.com/api/docs/deprecations
NO_NEW_JOBS = date(2027, 1, 6)
# https://learn.microsoft.com/azure/foundry/openai/concepts/model-retirements
AZURE_UNTIL = date(2027, 4, 1)


def refuse_settings(config: RunConfig) -> None:
    """Raises: ConfigError, with every setting that the service has no word for."""
    if problems := [*_foreign(config), *_values(config)]:
        raise ConfigError(*problems)


def _foreign(config: RunConfig) -> Iterator[str]:
    """What is set although only a training of one's own, or the other service, can do it."""
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
