"""Settings that do nothing where they are set: some need another one, and for some a fine-tuning service has no word.

Those are refused, all at once, with what to do; a service's runs are stored without what it has no word for.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config.schema import DpoConfig, RunConfig, TrainingConfig, WandbRun
from trainer.kinds import is_service, learns_from_pairs


@dataclass(frozen=True, slots=True)
class Need:
    """Settings that do nothing where `is_idle` says so, the reason, and the way out beside removing them."""

    settings: tuple[str, ...]
    is_idle: Callable[[RunConfig], bool]
    reason: str
    remedy: str


def _continues_run(config: RunConfig) -> bool:
    return (Path(config.model.base.partition("@")[0]) / "config.yaml").is_file()


NEEDS = (
    Need(
        (
            "data.allow_leak", "training.eval_steps", "training.eval_rows", "training.early_stopping_patience",
            "training.early_stopping_threshold", "training.adapter_from", "evaluation.max_rows",
            "evaluation.max_new_tokens", "evaluation.gate",
        ),
        lambda config: config.data.validation is None,
        "has no effect without validation data",
        "give data.validation (trainer data split FILE makes one)",
    ),
    Need(
        ("evaluation.gate",),
        lambda config: not config.evaluation.enabled,
        "judges a comparison, and evaluation.enabled is false",
        "set evaluation.enabled to true",
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
        ("openai.wandb.entity", "openai.wandb.name", "openai.wandb.tags"),
        lambda config: config.openai.wandb.project is None,
        "belongs to a project of Weights & Biases, and openai.wandb.project is not set",
        "give openai.wandb.project",
    ),
    Need(
        tuple(f"tracking.wandb.{name}" for name in WandbRun.model_fields),
        lambda config: "wandb" not in config.tracking.report_to,
        "names a run at Weights & Biases, and tracking.report_to does not hold wandb",
        "add wandb to tracking.report_to",
    ),
    Need(
        tuple(f"training.dpo.{name}" for name in DpoConfig.model_fields),
        lambda config: not learns_from_pairs(config.training.method),
        "is a setting of dpo, and training.method is 'sft'",
        "set training.method to dpo",
    ),
    Need(
        ("training.dpo.label_smoothing",),
        lambda config: learns_from_pairs(config.training.method) and config.training.dpo.loss != "sigmoid",
        "is a setting of the sigmoid loss, and training.dpo.loss is 'ipo'",
        "set training.dpo.loss to sigmoid",
    ),
    Need(
        ("training.dpo.reference",),
        lambda config: learns_from_pairs(config.training.method) and not _continues_run(config),
        "stays close to the earlier run that model.base names, and model.base names none",
        "set model.base to runs/<name>",
    ),
    Need(
        ("model.revision",),
        lambda config: config.model.base.startswith("builtin:") or Path(config.model.base).is_dir(),
        "is a commit of a hub model, and model.base is none",
        "name a hub model",
    ),
    Need(
        ("model.quantize_partly",),
        lambda config: config.model.quantization == "none",
        "accepts what a quantization leaves out, and model.quantization is 'none'",
        "set model.quantization to nf4 or int8",
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


SERVICE_TRAINING = frozenset({"method", "dpo", "n_epochs", "batch_size", "learning_rate_multiplier", "seed"})
SERVICE_DPO = frozenset({"beta"})
ADDED_LATER = frozenset({"dpo"})  # to section training, after runs had been written without it
NO_SERVICE_SECTIONS = ("lora", "memory", "tracking")
BACKEND_SECTIONS = ("azureml", "openai")  # each named like the kind of backend that reads it
AZURE_SERVICE_ONLY = frozenset(
    {
        "api_version", "training_type", "trust", "base_deployment", "deployment_sku", "subscription",
        "resource_group", "account", "management_url",
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
    return isinstance(training, dict) and training.keys() >= TrainingConfig.model_fields.keys() - ADDED_LATER


def idle_settings(config: RunConfig, given: Collection[str]) -> Iterator[tuple[str, str]]:
    """The settings among those `given` that would do nothing, each with the sentence that says so."""
    for need in NEEDS:
        for name in need.settings:
            if name in given and _is_meant(config, name) and need.is_idle(config):
                yield name, f"{name}: is {_shown(_value(config, name))}, but {need.reason}; {need.remedy}, or remove it"


def foreign_settings(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Section and name of everything that means nothing to the backend and method of `config`."""
    for section in type(config).model_fields:
        for name in type(getattr(config, section)).model_fields:
            if _is_foreign(section, name, config):
                yield section, name


def _is_foreign(section: str, name: str, config: RunConfig) -> bool:
    if section in BACKEND_SECTIONS and section != config.backend.kind:
        return True
    if (section, name) == ("training", "dpo") and not learns_from_pairs(config.training.method):
        return True
    return is_service(config.backend.kind) and _is_foreign_to_service(section, name, config)


def _is_foreign_to_service(section: str, name: str, config: RunConfig) -> bool:
    match section:
        case "model":
            return name != "base"
        case "data":
            return name == "train_reasoning"
        case "training":
            return name not in SERVICE_TRAINING
        case "openai":
            return name in AZURE_SERVICE_ONLY and config.openai.service != "azure"
        case "evaluation":
            return name == "suite"
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
