"""Settings that do nothing where they are set: some need another one, and for some a fine-tuning service has no word.

Those are refused, all at once, with what to do; a service's runs are stored without what it has no word for.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config.schema import RunConfig, TrainingConfig


@dataclass(frozen=True, slots=True)
class Need:
    """Settings that do nothing where `is_idle` says so, the reason, and the way out beside removing them."""

    settings: tuple[str, ...]
    is_idle: Callable[[RunConfig], bool]
    reason: str
    remedy: str


NEEDS = (
    Need(
        (
            "data.allow_leak", "training.eval_steps", "training.eval_rows", "training.early_stopping_patience",
            "training.early_stopping_threshold", "training.adapter_from", "evaluation.max_rows",
            "evaluation.max_new_tokens",
        ),
        lambda config: config.data.validation is None,
        "has no effect without validation data",
        "give data.validation (trainer data split FILE makes one)",
    ),
    Need(
        ("openai.validation_url_variable",),
        lambda config: config.data.validation is None,
        "names where data.validation is fetched from, and that is not set",
        "give data.validation, the file that it is kept in",
    ),
    Need(
        ("training.adam_beta1", "training.adam_beta2", "training.adam_epsilon"),
        lambda config: config.training.optimizer != "adamw",
        "is a setting of AdamW, and training.optimizer is 'sgd'",
        "set training.optimizer to adamw",
    ),
    Need(
        ("model.revision",),
        lambda config: config.model.base.startswith("builtin:") or Path(config.model.base).is_dir(),
        "is a commit of a hub model, and model.base is none",
        "name a hub model",
    ),
    Need(
        ("azureml.hub_token_secret",),
        lambda config: config.azureml.key_vault is None,
        "is a secret of azureml.key_vault, which is not set",
        "give azureml.key_vault",
    ),
    Need(
        ("azureml.deployment.max_requests", "azureml.deployment.max_length", "azureml.deployment.tool_parser"),
        lambda config: config.azureml.deployment.mode != "vllm",
        "is a setting of vllm, and azureml.deployment.mode is 'score'",
        "set azureml.deployment.mode to vllm",
    ),
    Need(
        ("azureml.deployment.max_tokens",),
        lambda config: config.azureml.deployment.mode != "score",
        "is a setting of the scoring script, and azureml.deployment.mode is 'vllm'",
        "set azureml.deployment.mode to score",
    ),
)  # fmt: skip


SERVICE_TRAINING = frozenset({"method", "n_epochs", "batch_size", "learning_rate_multiplier", "seed"})
NO_SERVICE_SECTIONS = ("lora", "memory", "tracking", "azureml")
AZURE_SERVICE_ONLY = frozenset(
    {
        "api_version", "training_type", "base_deployment", "subscription", "resource_group", "account",
        "management_url",
    }
)  # fmt: skip


def given_settings(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of all settings in `values`."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from given_settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def was_resolved(values: Mapping[str, Any]) -> bool:
    """True of a config that this program wrote, with every number in it: then nobody chose each of them."""
    training = values.get("training")
    return isinstance(training, dict) and training.keys() >= TrainingConfig.model_fields.keys()


def idle_settings(config: RunConfig, given: Collection[str]) -> Iterator[tuple[str, str]]:
    """The settings among those `given` that would do nothing, each with the sentence that says so."""
    for need in NEEDS:
        for name in need.settings:
            if name in given and _is_meant(config, name) and need.is_idle(config):
                yield name, f"{name}: is {_shown(_value(config, name))}, but {need.reason}; {need.remedy}, or remove it"


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
            return name not in SERVICE_TRAINING
        case "openai":
            return name in AZURE_SERVICE_ONLY and config.openai.service != "azure"
    return section in NO_SERVICE_SECTIONS


def is_default(config: RunConfig, section: str, name: str) -> bool:
    """True where a setting has its default value."""
    values = getattr(config, section)
    default = type(values).model_fields[name].get_default(call_default_factory=True)
    return bool(getattr(values, name) == default)


def _is_meant(config: RunConfig, name: str) -> bool:
    """True where a setting asks for something: another value than its default, or the best checkpoint."""
    section, _, field = name.rpartition(".")
    value = _value(config, name)
    if name == "training.adapter_from":
        return bool(value == "best")
    return bool(value != type(_value(config, section)).model_fields[field].default)


def _value(config: RunConfig, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
