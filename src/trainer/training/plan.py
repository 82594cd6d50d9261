"""Every number of a run before it starts: `auto` resolved from the data, the model and the device."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from trainer.config.fields import Auto
from trainer.config.schema import BASE_LEARNING_RATE, DEFAULT_BETA, EvaluationConfig, RunConfig
from trainer.errors import ConfigError
from trainer.kinds import learns_from_pairs
from trainer.model.tiny import NAME as TINY
from trainer.training.answer_limits import resolve_limits

if TYPE_CHECKING:
    from trainer.training.dataset import Row

T = TypeVar("T", int, float)

DEFAULT_EPOCHS = 3
TARGET_ROWS = (100, 25_000)  # rows seen in a run by default: more epochs for small files, fewer for large ones
MAX_AUTO_EPOCHS = 25
DEFAULT_SEED = 42
MAX_AUTO_BATCH_SIZE = 16
CURVE_POINTS = 100
MEMORY = ("token_budget", "recompute_layers")
LONG_EPOCH = 40  # steps; a longer epoch is also evaluated inside


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """The run in numbers; stored with the run, and the same again when it is resumed."""

    n_epochs: int
    batch_size: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    learning_rate: float
    seed: int
    max_length: int
    token_budget: int
    recompute_layers: int
    logging_steps: int
    eval_steps: int
    save_steps: int


def make_plan(
    config: RunConfig, rows_per_epoch: int, max_length: int, token_budget: int, recompute_layers: int = 0
) -> TrainingPlan:
    """Resolve every `auto` for an epoch of `rows_per_epoch` conversations."""
    training = config.training
    n_epochs = _or(training.n_epochs, auto_epochs(rows_per_epoch))
    batch_size = find_batch_size(config, rows_per_epoch)
    steps_per_epoch = math.ceil(rows_per_epoch / batch_size)
    total_steps = n_epochs * steps_per_epoch
    multiplier = _or(training.learning_rate_multiplier, 1.0)
    return TrainingPlan(
        n_epochs=n_epochs,
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        warmup_steps=math.ceil(training.warmup_ratio * total_steps),
        learning_rate=training.learning_rate or multiplier * BASE_LEARNING_RATE,
        seed=_or(training.seed, DEFAULT_SEED),
        max_length=max_length,
        token_budget=token_budget,
        recompute_layers=recompute_layers,
        logging_steps=_or(training.logging_steps, max(1, min(10, total_steps // CURVE_POINTS))),
        eval_steps=_or(training.eval_steps, steps_per_epoch // 4 if steps_per_epoch >= LONG_EPOCH else steps_per_epoch),
        save_steps=_or(training.save_steps, max(10, math.ceil(total_steps / 10))),
    )


def find_batch_size(config: RunConfig, rows_per_epoch: int) -> int:
    """Conversations of a step."""
    return _or(config.training.batch_size, max(1, min(MAX_AUTO_BATCH_SIZE, rows_per_epoch // 20)))


def check_reasoning(config: RunConfig, thinks: bool) -> None:
    """Raises: ConfigError, where thoughts are to be trained and no row has one."""
    if config.data.train_reasoning is True and not thinks:
        raise ConfigError(
            "data.train_reasoning: is true, and no row has a thought, expected reasoning_content in answers; add it, "
            "or set auto"
        )


def resolve(
    config: RunConfig,
    plan: TrainingPlan,
    dtype: str,
    is_sharded: bool = False,
    validation: Sequence["Row"] = (),
    on_gpu: bool = False,
    thinks: bool = False,
) -> RunConfig:
    """The config with the plan's numbers, the number format and what `validation` needs in place of `auto`.

    `is_sharded`: the processes shard the base; `thinks`: the rows have thoughts.
    """
    names = ("n_epochs", "batch_size", "seed", "logging_steps", "eval_steps", "save_steps")
    training: dict[str, Any] = {name: getattr(plan, name) for name in names}
    training |= {
        "learning_rate": plan.learning_rate,
        "learning_rate_multiplier": plan.learning_rate / BASE_LEARNING_RATE,
    }
    if learns_from_pairs(config.training.method):
        dpo = config.training.dpo
        training["dpo"] = dpo.model_copy(update={"beta": _or(dpo.beta, DEFAULT_BETA)})
    data = {"max_length": plan.max_length, "train_reasoning": _or(config.data.train_reasoning, thinks)}
    memory = {name: getattr(plan, name) for name in MEMORY} | {"shard_base": is_sharded}
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"dtype": dtype}),
            "data": config.data.model_copy(update=data),
            "training": config.training.model_copy(update=training),
            "memory": config.memory.model_copy(update=memory),
            "evaluation": resolve_limits(with_suite(config, on_gpu), validation, config.data.train_reasoning),
        }
    )


def with_suite(config: RunConfig, on_gpu: bool) -> EvaluationConfig:
    """The suite takes minutes on a CPU, and the tiny base has none of it right."""
    suite = _or(config.evaluation.suite, on_gpu and config.model.base != TINY)
    return config.evaluation.model_copy(update={"suite": suite})


def _or(value: "T | Auto", default: T) -> T:
    return default if value == "auto" else value


def auto_epochs(rows: int) -> int:
    """3, but at least 100 rows seen in all, and no more than 25,000."""
    fewest, most = TARGET_ROWS
    if rows * DEFAULT_EPOCHS < fewest:
        return min(MAX_AUTO_EPOCHS, math.ceil(fewest / rows))
    if rows * DEFAULT_EPOCHS > most:
        return max(1, most // rows)
    return DEFAULT_EPOCHS
