"""Everything that can be verified without training, and every number that training needs."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.config.schema import ModelConfig, RunConfig
from trainer.data.rendering import Renderer, RenderingError
from trainer.errors import ConfigError
from trainer.model.adapter import check_targets
from trainer.model.base import Base, find_base, load_tokenizer
from trainer.model.device import free_memory_bytes, pick_device, pick_dtype
from trainer.model.lineage import Parent, find_parent, inherit
from trainer.training.dataset import TrainingData, check_data, render_data
from trainer.training.memory import MemoryEstimate, estimate
from trainer.training.order import rows_per_epoch
from trainer.training.plan import Plan, make_plan, resolve

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start. `config` is resolved: it holds no `auto`."""

    config: RunConfig
    plan: Plan
    base: Base
    parent: Parent | None
    tokenizer: "PreTrainedTokenizerBase"
    data: TrainingData
    memory: MemoryEstimate
    device: "torch.device"
    dtype: "torch.dtype"


def prepare(config: RunConfig, report: Callable[[str], None]) -> Prepared:
    """Check data and model, and resolve every `auto`. `report` is told what takes long.

    Raises: ConfigError, DataError.
    """
    _check_single_process()
    checked = check_data(config.data)
    parent = find_parent(config)
    if parent is not None:
        config = inherit(config, parent)
    base = find_base(_base_settings(config, parent), report)
    _check_same_base(base, parent)
    tokenizer = load_tokenizer(base, config.model)
    renderer = Renderer(tokenizer)
    try:
        renderer.end_markers  # noqa: B018  # derived once here, so that a template without one is refused once
    except RenderingError as error:
        raise ConfigError(f"model.base: {config.model.base!r}: {error}") from None
    if parent is None:
        check_targets(base.skeleton, config.lora)
    max_length = base.max_length if config.data.max_length == "auto" else config.data.max_length
    data = render_data(checked, config.data, renderer, max_length)
    device = pick_device()
    dtype = pick_dtype(config.model, device)
    memory = estimate(config, base, dtype, device, free_memory_bytes(device), data.longest)
    if problem := memory.problem(data.longest):
        raise ConfigError(problem)
    counts: dict[str, int] = {}
    for row in data.train:
        counts[row.conversation.file] = counts.get(row.conversation.file, 0) + 1
    plan = make_plan(config, rows_per_epoch(counts, data.weights), max_length, memory.token_budget)
    resolved = resolve(config, plan, str(dtype).removeprefix("torch."), data.validation)
    return Prepared(resolved, plan, base, parent, tokenizer, data, memory, device, dtype)


def _base_settings(config: RunConfig, parent: Parent | None) -> ModelConfig:
    """Where the weights come from: the model itself, or the base that the parent run pins."""
    if parent is None:
        return config.model
    pinned = {"base": parent.base["name"], "revision": parent.base["revision"] if parent.from_hub else None}
    return config.model.model_copy(update=pinned)


def _check_same_base(base: Base, parent: Parent | None) -> None:
    """An adapter fits only the weights it was trained on."""
    if parent is None:
        return
    before, found = parent.base, base.identity()
    for key in ("revision", "weights_sha256"):
        if before[key] != found[key]:
            raise ConfigError(
                f"model.base: {parent.run.path} was trained on {before['name']!r} with {key} {before[key]!r}, "
                f"and now it has {found[key]!r}; bring the old one back"
            )


def _check_single_process() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("WORLD_SIZE: started as one of several processes, expected one; start train without torchrun")
