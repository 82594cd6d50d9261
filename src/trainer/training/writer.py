"""Checkpoints are written beside training: the training thread only copies tensors to host memory."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors.torch import save

from trainer.errors import TrainingError
from trainer.runs import checkpoint
from trainer.training.snapshot import HostCopy


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is to be written: tensors by file and name, finished files, and the lengths of logs that still grow."""

    step: int
    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    texts: Mapping[str, bytes]
    logs: Mapping[Path, int]  # file: its size in bytes at this step
    state: Mapping[str, Any]


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
