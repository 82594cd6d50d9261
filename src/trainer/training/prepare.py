"""Everything that can be verified without training, and every number that training needs."""

import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.config.schema import ModelConfig, RunConfig
from trainer.data.read.sources import CheckedData, check_data
from trainer.data.render.rendering import Renderer, RenderingError
from trainer.errors import ConfigError, MissingDependency
from trainer.extras import absent, missing
from trainer.model.base import Base, find_base, load_tokenizer
from trainer.model.device import free_memory_bytes, pick_device, pick_dtype, total_memory_bytes
from trainer.model.lineage import Parent, find_parent, inherit
from trainer.model.quantization import adopted, quantized_weights
from trainer.model.shares import weight_shares
from trainer.model.targets import num_trained
from trainer.model.threads import choose_threads
from trainer.runs.manifest import WeightShare
from trainer.training import launch
from trainer.training.dataset import TrainingData, render_data
from trainer.training.garbage import all_stays
from trainer.training.memory import MemoryPlan, fit_memory, partly_quantized
from trainer.training.order import rows_per_epoch
from trainer.training.plan import TrainingPlan, check_reasoning, find_batch_size, make_plan, resolve
from trainer.training.ranks import Ranks, join

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate")


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start. `config` is resolved: it holds no `auto`."""

    config: RunConfig
    plan: TrainingPlan
    base: Base
    parent: Parent | None
    tokenizer: "PreTrainedTokenizerBase"
    data: TrainingData
    memory: MemoryPlan
    shares: tuple[WeightShare, ...]  # of the base's weights: what gets an adapter, and what is quantized
    device: "torch.device"
    dtype: "torch.dtype"
    ranks: Ranks

    @property
    def num_trained(self) -> int:
        """Weights of the adapter."""
        return num_trained(self.base.skeleton, self.config.lora)


@dataclass(frozen=True)
class Preprocessing:
    """Tokenizer and renderer of a config's model; `config` holds what a parent run passes on."""

    config: RunConfig
    base: Base
    parent: Parent | None
    renderer: Renderer
    max_length: int


def prepare(
    config: RunConfig, report: Callable[[str], None], checked: CheckedData | None = None, waits: bool = False
) -> Prepared:
    """Check data and model, and resolve every `auto`. `report` receives the name of each long step.

    `checked` is what the data files hold, where they have been read already. A run that `waits` for others to end is
    planned with all of the device's memory.

    Raises: ConfigError, DataError.
    """
    ranks = join()
    if checked is None:
        with all_stays():
            checked = check_data(config.data, config.training.method)
    thinks = checked.report.has_thoughts
    check_reasoning(config, thinks)
    preprocessing = find_preprocessing(config, thinks)
    config, base, parent = preprocessing.config, preprocessing.base, preprocessing.parent
    for note in base.notes:
        report(note)
    shares = tuple(weight_shares(base.skeleton, config.lora, quantized_weights(base.skeleton, config.model)))
    data = render_data(checked, config.data, preprocessing.renderer, preprocessing.max_length, ranks.on_machine)
    if data.has_role("developer") and not preprocessing.renderer.template.keeps_developer:
        report("developer messages are rendered as system: this model's chat template has no such role")
    if data.has_thoughts and preprocessing.renderer.template.thoughts_apart:
        report(
            "<think> in answers is trained as part of them: this model's chat template has another place for thoughts"
        )
    device = pick_device()
    choose_threads(ranks.on_machine)
    dtype = pick_dtype(config.model, device, sum(parameter.numel() for parameter in base.skeleton.parameters()))
    if problem := partly_quantized(base, config.model, dtype, device):
        raise ConfigError(problem)
    counts = Counter(conversation.file for conversation in data.train.conversations)
    num_rows = rows_per_epoch(counts, data.weights)
    num_processes = _num_processes(ranks)
    free = _free_bytes(total_memory_bytes(device) if waits else free_memory_bytes(device), device, ranks, num_processes)
    memory = fit_memory(config, base, dtype, device, data, find_batch_size(config, num_rows), free, num_processes)
    if problem := memory.problem(data.longest):
        raise ConfigError(problem)
    plan = make_plan(config, num_rows, preprocessing.max_length, memory.token_budget, memory.recompute_layers)
    number_format, is_sharded = str(dtype).removeprefix("torch."), memory.num_shards > 1
    resolved = resolve(config, plan, number_format, is_sharded, data.validation, device.type != "cpu", thinks)
    return Prepared(
        resolved, plan, base, parent, preprocessing.renderer.tokenizer, data, memory, shares, device, dtype, ranks
    )


def _num_processes(ranks: Ranks) -> int:
    """Those of the run: one that only checks the run has not started them."""
    alone = ranks.size == 1 and "WORLD_SIZE" not in os.environ
    return launch.num_processes(os.environ) if alone else ranks.size


def _free_bytes(free: int, device: "torch.device", ranks: Ranks, num_processes: int) -> int:
    """Free bytes of each process: all plan with the least, and on a CPU they share it."""
    least = min(ranks.gather(free))
    return least // num_processes if device.type == "cpu" else least


def load_preprocessing(config: RunConfig, thinks: bool | None = None) -> Preprocessing:
    """Find tokenizer and renderer of the config's model; skips all that only training needs.

    `thinks` says whether the rows have thoughts, where they are known.

    Raises: MissingDependency, ConfigError.
    """
    check_packages((), config)
    be_quiet()
    return find_preprocessing(config, thinks)


def render(config: RunConfig, checked: CheckedData) -> tuple[Preprocessing, TrainingData]:
    """The rows of the config as its model reads them, whatever this machine could train.

    Raises: MissingDependency, ConfigError, DataError.
    """
    found = load_preprocessing(config, checked.report.has_thoughts)
    return found, render_data(checked, found.config.data, found.renderer, found.max_length)


def find_preprocessing(config: RunConfig, thinks: bool | None = None) -> Preprocessing:
    """The tokenizer and chat template of the config's model, and the longest row in tokens.

    Raises: ConfigError.
    """
    parent = find_parent(config)
    if parent is not None:
        config = inherit(config, parent)
    base = find_base(_base_settings(config, parent))
    config = config.model_copy(update={"model": adopted(config.model, base.config)})
    _check_same_base(base, parent)
    renderer = Renderer(load_tokenizer(base, config.model), config.data.train_reasoning is not False, thinks)
    try:
        renderer.template.check()  # once here, and not for every row
    except RenderingError as error:
        raise ConfigError(f"model.base: {config.model.base!r}: {error}") from None
    max_length = base.max_length if config.data.max_length == "auto" else config.data.max_length
    return Preprocessing(config, base, parent, renderer, max_length)


def _base_settings(config: RunConfig, parent: Parent | None) -> ModelConfig:
    """The origin of the weights: the model itself, or the base that the parent run pins."""
    if parent is None:
        return config.model
    pinned = {"base": parent.base.name, "revision": parent.base.revision if parent.from_hub else None}
    return config.model.model_copy(update=pinned)


def _check_same_base(base: Base, parent: Parent | None) -> None:
    """An adapter fits only the weights it was trained on."""
    if parent is None or not parent.base.is_pinned:
        return
    before, found = parent.base, base.pinned()
    for key in ("revision", "weights_sha256"):
        if (was := getattr(before, key)) != (now := getattr(found, key)):
            raise ConfigError(
                f"model.base: {parent.run.path} was trained on {before.name!r} with {key} {was!r}, "
                f"and now it has {now!r}; bring the old one back"
            )


def check_packages(more: Sequence[str], config: RunConfig) -> None:
    """Raises: MissingDependency, where training, the `more` packages or the config's trackers are not installed."""
    wanted, trackers = (*PACKAGES, *more), config.tracking.report_to
    problems = [
        f"tracking.report_to: {name} is not installed; run: pip install {name.replace('_', '-')}"
        for name in absent(trackers)
    ]
    if gone := absent(wanted):
        problems.append(str(missing("the local backend", *gone, extra="local")))
    if problems:
        raise MissingDependency(*problems)


def be_quiet() -> None:
    """The libraries' own bars and advice would drown what we say; their errors still come through."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
