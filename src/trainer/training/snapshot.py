"""The state of a training process as host memory and JSON values, and back: optimizer tensors, random generators."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import load_file

from trainer.errors import TrainingError


class HostCopy:
    """Copies of tensors in host memory that is allocated once: taking one costs the transfer and nothing else."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def take(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors as they are now. Valid until the next call."""
        on_gpu = any(tensor.is_cuda for tensor in tensors.values())
        for name, tensor in tensors.items():
            if name not in self._buffers:
                self._buffers[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=on_gpu)
            self._buffers[name].copy_(tensor.detach(), non_blocking=True)
        if on_gpu:
            torch.cuda.synchronize()
        return {name: self._buffers[name] for name in tensors}


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, torch.Tensor]:
    """The optimizer's state as `<parameter>/<key>`. `names` maps id(parameter) to its name.

    The groups' settings are not part of it: they come from the run's config.
    """
    return {
        f"{names[id(parameter)]}/{key}": value
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
        if isinstance(value, torch.Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, names: Mapping[int, str], file: Path) -> None:
    """Put back what `optimizer_tensors` gave.

    Raises: TrainingError, when the file does not hold the state of exactly these parameters.
    """
    tensors = load_file(file)
    state: dict[int, dict[str, torch.Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(parameters):
        prefix = f"{names[id(parameter)]}/"
        values = {key.removeprefix(prefix): tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}
        for key, value in values.items():
            if value.numel() != 1 and value.shape != parameter.shape:
                raise TrainingError(
                    f"{file}: {prefix}{key} has the shape {tuple(value.shape)}, expected {tuple(parameter.shape)}; "
                    "delete this checkpoint to go on from an earlier one"
                )
        if values:
            state[number] = values
    if tensors:
        raise TrainingError(f"{file}: holds state of {next(iter(tensors))!r}, which this run does not train")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def rng_state() -> dict[str, Any]:
    """The state of every random number generator, as JSON values."""
    name, keys, position, has_gauss, gauss = numpy.random.get_state()
    version, internal, gauss_next = random.getstate()
    return {
        "python": [version, list(internal), gauss_next],
        "numpy": [name, numpy.asarray(keys).tolist(), position, has_gauss, gauss],
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "cuda": [state.numpy().tobytes().hex() for state in torch.cuda.get_rng_state_all()]
        if torch.cuda.is_available()
        else [],
    }


def restore_rng(state: Mapping[str, Any]) -> None:
    """Put back what `rng_state` gave."""
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    numpy.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(_bytes_tensor(state["torch"]))
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all([_bytes_tensor(value) for value in state["cuda"]])


def _bytes_tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
