"""The work of a run as far as this machine can tell, how long it takes, and what that costs.

Hours and cost are estimates with their basis; the time after which the job is ended keeps the spend cap.
"""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.backends.azureml.machines import Machine, Price
from trainer.backends.quote import Item, Quote
from trainer.config.schema import RunConfig
from trainer.data.read.checks import DataReport
from trainer.data.read.sources import CheckedData, check_data
from trainer.errors import ConfigError
from trainer.extras import TO_LOAD_A_MODEL, lack
from trainer.kinds import learns_from_pairs
from trainer.model.base import UnfitBaseError, judged
from trainer.model.base_folder import refuse_folder
from trainer.model.weight_files import read_tensors
from trainer.training.plan import check_reasoning, make_plan

if TYPE_CHECKING:
    from trainer.model.base import Base
    from trainer.training.dataset import TrainingData
    from trainer.training.memory import MemoryPlan

CHARACTERS_A_TOKEN = 3.0  # of English it is about 4; fewer means more tokens, so that a quote is rather too high
USABLE_GPU = 0.95  # of a GPU's memory; the rest is the driver's
FLOPS_A_TOKEN = 4  # a parameter: 2 forward, 2 for the gradient of what flows through; frozen weights need no third
UTILIZATION = 0.2  # of the GPU's peak; well-tuned training reaches 0.3 to 0.5, small models and 4-bit bases less
SCALING = 0.8  # of each further GPU
START_HOURS = 0.5  # a node that starts, the image, the base's download, evaluation at the end
LEAST_CAP_HOURS = 2.0
UNKNOWN_CAP_HOURS = 24.0  # where nothing is known to estimate the hours from
LEAST_TIMEOUT_SECONDS = 60  # Azure ML takes whole seconds
CAP_FACTOR = 3.0  # an estimate that is three times too low ends no run


@dataclass(frozen=True, slots=True)
class Workload:
    """Of a run. `num_parameters` is None where neither the base nor its name says it."""

    num_rows: int
    num_held_out: int
    num_tokens: int  # one pass over the training rows
    num_parameters: float | None
    basis: str  # where these numbers are from
    config: RunConfig  # with what an earlier run passes on
    memory: "MemoryPlan | None" = None
    problems: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()


def measure(config: RunConfig, machine: Machine | None) -> Workload:
    """Check the data by every rule, and the base where it can be read here. Raises: ConfigError, DataError."""
    checked = check_data(config.data, config.training.method)
    report = checked.report
    check_reasoning(config, report.has_thoughts)
    if config.model.base.startswith("azureml:"):
        return _guessed(config, report, "the base is a model of the workspace")
    if missing := lack(TO_LOAD_A_MODEL):
        guessed = _guessed(config, report, missing)
        return replace(guessed, problems=_file_problems(config.model.base))
    try:
        return _measured(config, checked, machine)
    except ConfigError as error:
        if _is_here(config.model.base) or isinstance(error, UnfitBaseError):
            return replace(_guessed(config, report, "the base cannot be used"), problems=error.problems)
        return _guessed(config, report, "the base cannot be reached from here")


def _is_here(base: str) -> bool:
    return Path(base.partition("@")[0]).is_dir() or base.startswith("builtin:")


def _file_problems(base: str) -> tuple[str, ...]:
    """Faults of a folder's files, found without the libraries that load it; a run has its base elsewhere."""
    if not Path(base).exists() or (Path(base) / "config.yaml").is_file():
        return ()
    try:
        refuse_folder(base)
        read_tensors(Path(base), "model.base")
    except ConfigError as error:
        return error.problems
    return ()


def _measured(config: RunConfig, checked: CheckedData, machine: Machine | None) -> Workload:
    """With the base's own tokenizer and shape. Raises: ConfigError, DataError."""
    from trainer.model.targets import find_targets
    from trainer.training.dataset import render_data
    from trainer.training.prepare import load_preprocessing

    preprocessing = load_preprocessing(config, checked.report.has_thoughts)
    if preprocessing.parent is None:
        judged(lambda: find_targets(preprocessing.base.skeleton, preprocessing.config.lora))
    data = render_data(checked, preprocessing.config.data, preprocessing.renderer, preprocessing.max_length)
    parameters = sum(parameter.numel() for parameter in preprocessing.base.skeleton.parameters())
    work = Workload(
        len(data.train), len(data.validation), data.num_tokens, float(parameters),
        "counted with the base's own tokenizer and shape", preprocessing.config,
        unverified=tuple(preprocessing.base.notes),
    )  # fmt: skip
    return work if machine is None else _with_memory(work, preprocessing.base, machine, data)


def _with_memory(work: Workload, base: "Base", machine: Machine, data: "TrainingData") -> Workload:
    """Fit weights and longest row into a GPU of the machine, or into several that shard the base."""
    import torch

    from trainer.training.memory import fit_memory, partly_quantized
    from trainer.training.plan import find_batch_size

    name = work.config.model.dtype
    dtype = getattr(torch, ("bfloat16" if machine.gpu.has_bfloat16 else "float16") if name == "auto" else name)
    free, device = int(machine.gpu.memory_bytes * USABLE_GPU), torch.device("cuda")
    config = work.config
    if missed := partly_quantized(base, config.model, dtype, device):
        return replace(work, problems=(missed,))
    memory = fit_memory(
        config, base, dtype, device, data, find_batch_size(config, len(data.train)), free,
        machine.num_gpus * config.azureml.instance_count, machine.gpu.has_bfloat16,
    )  # fmt: skip
    problem = memory.problem(data.longest)
    return replace(work, memory=memory, problems=(f"{problem} ({machine})",) if problem else ())


def _guessed(config: RunConfig, report: DataReport, reason: str) -> Workload:
    """From the size of the text and the number in the base's name."""
    chats = [branch for row in report.conversations for branch in row.branches]
    characters = sum(len(message.content or "") for chat in chats for message in chat.messages)
    return Workload(
        len(report.conversations), len(report.validation), round(characters / CHARACTERS_A_TOKEN),
        parameters_in(config.model.base), f"guessed from characters and the base's name, as {reason}", config,
        unverified=(f"the base and its memory, tokens and template ({reason}); the job checks them when it starts",),
    )  # fmt: skip


def parameters_in(name: str) -> float | None:
    """The number of parameters that a model's name states: 8B, 1.7b, 135M."""
    found = re.findall(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)\s*([bBmM])(?![A-Za-z0-9])", name.rpartition("/")[2])
    return max((float(number) * (1e9 if unit in "bB" else 1e6) for number, unit in found), default=None)


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """`hours` is None where nothing is known to compute it from."""

    hours: float | None
    basis: str
    timeout_seconds: int
    quote: Quote
    hourly: float | None  # of all machines; None where no price is known


def cost_of(
    config: RunConfig, work: Workload, machine: Machine | None, price: Price, machines_word: str
) -> CostEstimate:
    """The estimate, its price, and the time limit that keeps the spend cap."""
    settings = config.azureml
    hours, basis = _hours(config, work, machine)
    per_hour = None if price.per_hour is None else price.per_hour * settings.instance_count
    limit = _limit_hours(config, hours, per_hour)
    notes = [
        f"hours: {basis}",
        f"the job is ended after {limit:,.1f} h at the latest{_at_most(config, limit, per_hour)}",
    ]
    if hours is not None and hours > limit:
        notes.append("this is less than the estimate: the run would end before it is done")
    what = "? h" if hours is None else f"{hours:,.1f} h (estimate)"
    rate = "" if price.per_hour is None else f" at {price.per_hour:,.3f} {settings.currency} an hour"
    amount = None if hours is None or per_hour is None else hours * per_hour
    item = Item(f"{what} x {settings.instance_count} {machines_word}{rate}", amount)
    quote = Quote([item], price.source, settings.currency, notes=notes)
    timeout = max(LEAST_TIMEOUT_SECONDS, math.floor(limit * 3600))
    return CostEstimate(hours, basis, timeout, quote, per_hour)


def trained_tokens(config: RunConfig, work: Workload) -> int:
    """Tokens of the training rows times their epochs."""
    return work.num_tokens * make_plan(config, work.num_rows, 1, 1).n_epochs


def _hours(config: RunConfig, work: Workload, machine: Machine | None) -> tuple[float | None, str]:
    if config.azureml.hours is not None:
        return config.azureml.hours, "azureml.hours of the config"
    if machine is None or work.num_parameters is None:
        missing = "the GPU" if machine is None else "the base's size"
        return None, f"not known, as {missing} is not; give azureml.hours"
    tokens = trained_tokens(config, work)
    if learns_from_pairs(config.training.method):
        tokens += work.num_tokens // 2  # of the reference: one pass forward, half of a step's operations
    num_gpus = machine.num_gpus * config.azureml.instance_count
    speed = machine.gpu.flops * UTILIZATION * (1 + (num_gpus - 1) * SCALING)
    hours = START_HOURS + FLOPS_A_TOKEN * work.num_parameters * tokens / speed / 3600
    operations = f"{tokens:,} tokens x {work.num_parameters / 1e9:,.3g}e9 parameters x {FLOPS_A_TOKEN} operations"
    peak = f"{UTILIZATION:.0%} of the peak of {num_gpus} x {machine.gpu.name}"
    return hours, f"an estimate, not a measurement: {START_HOURS} h to start, and {operations} at {peak}; {work.basis}"


def _limit_hours(config: RunConfig, hours: float | None, per_hour: float | None) -> float:
    """The config's limit, within what the cap pays for."""
    cap, chosen = config.backend.spend_cap, config.azureml.max_hours
    paid = cap / per_hour if cap is not None and per_hour else None
    if chosen is not None:
        return chosen if paid is None else min(chosen, paid)
    if paid is not None:
        return paid
    return UNKNOWN_CAP_HOURS if hours is None else max(LEAST_CAP_HOURS, CAP_FACTOR * hours)


def _at_most(config: RunConfig, limit: float, per_hour: float | None) -> str:
    return "" if per_hour is None else f", at {limit * per_hour:,.2f} {config.azureml.currency}"
