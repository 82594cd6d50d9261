"""A training process in checkpoints: its state as host memory and JSON values, written beside training, and put back.

The training thread only copies tensors to host memory; another one writes them.
"""

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy
import torch
from safetensors.torch import load_file, save

from trainer.errors import TrainingError
from trainer.runs import checkpoint


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A checkpoint to be written: tensors by file and name, finished files, and the lengths of growing logs."""

    step: int
    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    texts: Mapping[str, bytes]
    logs: Mapping[Path, int]  # file: its size in bytes at this step
    state: Mapping[str, Any]


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


class CheckpointWriter:
    """Writes one checkpoint at a time in a thread of its own. What goes wrong there is raised by the next call."""

    def __init__(self, folder: Path, written: Callable[[Snapshot], None]) -> None:
        self.folder, self.written = folder, written
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._copies: dict[str, HostCopy] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is written any more when the block has ended; another error comes before one of the writer's."""
        try:
            self.wait()
        except Exception:
            if error is None:
                raise

    def submit(self, snapshot: Snapshot) -> None:
        """Copy the snapshot's tensors and write it in the background; waits for the write before it.

        Raises: TrainingError, of the write before it.
        """
        self.wait()
        tensors = {
            file: self._copies.setdefault(file, HostCopy()).take(values) for file, values in snapshot.tensors.items()
        }
        self._thread = threading.Thread(target=self._run, args=(snapshot, tensors), name="checkpoint-writer")
        self._thread.start()

    def wait(self) -> None:
        """Until everything submitted is on disk. Raises: TrainingError."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self, snapshot: Snapshot, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        try:
            for file, values in tensors.items():
                _refuse_non_finite(snapshot.step, file, values)
            content = {file: save(dict(values), {"format": "pt"}) for file, values in tensors.items()}
            logs = {path.name: _beginning(path, size) for path, size in snapshot.logs.items()}
            checkpoint.write(self.folder, snapshot.step, content | dict(snapshot.texts) | logs, snapshot.state)
            self.written(snapshot)
        except Exception as error:  # handed to the training thread
            self._error = error


def _refuse_non_finite(step: int, file: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Weights and optimizer state that are not finite are never stored. Raises: TrainingError."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            what = "optimizer state" if file.startswith("optimizer") else "weight"
            raise TrainingError(
                f"step {step}: the {what} {name} is not finite, expected finite numbers; nothing of it was stored; "
                "lower the learning rate, or look at the rows of this step"
            )


def _beginning(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


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
                    "delete this checkpoint to resume from an earlier one"
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
