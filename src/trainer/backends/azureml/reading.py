"""What the data and the base of a run amount to, as far as this machine can tell."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.backends.azureml.skus import Machine
from trainer.config.schema import RunConfig
from trainer.data.read.checks import DataReport
from trainer.data.read.sources import CheckedData, check_data
from trainer.errors import ConfigError
from trainer.extras import TO_LOAD_A_MODEL, lack
from trainer.model.base import UnfitBaseError
from trainer.model.base_folder import refuse_folder
from trainer.model.weight_files import read_tensors

if TYPE_CHECKING:
    from trainer.model.base import Base
    from trainer.training.dataset import TrainingData
    from trainer.training.memory import MemoryPlan

CHARACTERS_A_TOKEN = 3.0  # of English it is about 4; fewer means more tokens, so that a quote is rather too high
USABLE_GPU = 0.95  # of a GPU's memory; the rest is the driver's


@dataclass(frozen=True, slots=True)
class Amounts:
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


def measure(config: RunConfig, machine: Machine | None) -> Amounts:
    """Check the data by every rule, and the base where it can be read here. Raises: DataError."""
    checked = check_data(config.data)
    report = checked.report
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
    """What can be told of a folder's files without the libraries that load them; a run has its base elsewhere."""
    if not Path(base).exists() or (Path(base) / "config.yaml").is_file():
        return ()
    try:
        refuse_folder(base)
        read_tensors(Path(base), "model.base")
    except ConfigError as error:
        return error.problems
    return ()


def _measured(config: RunConfig, checked: CheckedData, machine: Machine | None) -> Amounts:
    """With the base's own tokenizer and shape. Raises: ConfigError, DataError."""
    from trainer.backends.local import read
    from trainer.model.adapter import check_targets
    from trainer.training.dataset import render_data

    reading = read(config)
    if reading.parent is None:
        check_targets(reading.base.skeleton, reading.config.lora)
    data = render_data(checked, reading.config.data, reading.renderer, reading.max_length)
    parameters = sum(parameter.numel() for parameter in reading.base.skeleton.parameters())
    amounts = Amounts(
        len(data.train), len(data.validation), data.num_tokens, float(parameters),
        "counted with the base's own tokenizer and shape", reading.config, unverified=tuple(reading.base.notes),
    )  # fmt: skip
    return amounts if machine is None else _with_memory(amounts, reading.base, machine, data)


def _with_memory(amounts: Amounts, base: "Base", machine: Machine, data: "TrainingData") -> Amounts:
    """Whether weights and longest row fit into a GPU of the machine, or into several that share the base."""
    import torch

    from trainer.training.memory import fit_memory
    from trainer.training.plan import find_batch_size

    name = amounts.config.model.dtype
    dtype = getattr(torch, ("bfloat16" if machine.gpu.has_bfloat16 else "float16") if name == "auto" else name)
    free = int(machine.gpu.memory_bytes * USABLE_GPU)
    config = amounts.config
    memory = fit_memory(
        config, base, dtype, torch.device("cuda"), data, find_batch_size(config, len(data.train)), free,
        machine.num_gpus * config.azureml.instance_count, machine.gpu.has_bfloat16,
    )  # fmt: skip
    problem = memory.problem(data.longest)
    return replace(amounts, memory=memory, problems=(f"{problem} ({machine})",) if problem else ())


def _guessed(config: RunConfig, report: DataReport, reason: str) -> Amounts:
    """From the size of the text and the number in the base's name."""
    characters = sum(len(message.content or "") for row in report.conversations for message in row.messages)
    return Amounts(
        len(report.conversations), len(report.validation), round(characters / CHARACTERS_A_TOKEN),
        parameters_in(config.model.base), f"guessed from characters and the base's name, as {reason}", config,
        unverified=(f"the base and its memory, tokens and template ({reason}); the job checks them when it starts",),
    )  # fmt: skip


def parameters_in(name: str) -> float | None:
    """The number of parameters that a model's name states: 8B, 1.7b, 135M."""
    found = re.findall(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)\s*([bBmM])(?![A-Za-z0-9])", name.rpartition("/")[2])
    return max((float(number) * (1e9 if unit in "bB" else 1e6) for number, unit in found), default=None)
