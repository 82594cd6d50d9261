"""Settings that a fine-tuning service has no word for: refused where they are set, and left out of its runs."""

from collections.abc import Iterator

from trainer.config.schema import RunConfig

TRAINING = frozenset({"method", "n_epochs", "batch_size", "learning_rate_multiplier", "seed"})
SECTIONS = ("lora", "memory", "tracking", "azureml")
AZURE_ONLY = frozenset(
    {
        "api_version", "training_type", "base_deployment", "subscription", "resource_group", "account",
        "management_url",
    }
)  # fmt: skip


def foreign_settings(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Section and name of everything that means nothing to the service of `config`."""
    for section in type(config).model_fields:
        for name in type(getattr(config, section)).model_fields:
            if _is_foreign(section, name, config):
                yield section, name


def _is_foreign(section: str, name: str, config: RunConfig) -> bool:
    match section:
        case "model":
            return name != "base"
        case "training":
            return name not in TRAINING
        case "openai":
            return name in AZURE_ONLY and config.openai.service != "azure"
    return section in SECTIONS


def is_default(config: RunConfig, section: str, name: str) -> bool:
    """Whether a setting has the value that it has where nobody sets it."""
    values = getattr(config, section)
    default = type(values).model_fields[name].get_default(call_default_factory=True)
    return bool(getattr(values, name) == default)
