"""Checkpoints: everything that training needs to go on, with a manifest, written last, that says what is whole.

A checkpoint is a folder `step-<step>` with the adapter in PEFT's format, the optimizer's state as safetensors, and
everything else as JSON. Nothing is pickled. `MANIFEST.json` holds size and sha256 of every file; without it, or with
a file that differs from it, the checkpoint does not count.
"""

import hashlib
import json
import random
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import load_file, save

from trainer.errors import TrainingError
from trainer.runs import files

MANIFEST = "MANIFEST.json"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that may or may not be complete; `problem()` tells."""

    path: Path

    @property
    def step(self) -> int:
        return int(self.path.name.removeprefix("step-"))

    def problem(self) -> str | None:
        """Why this checkpoint cannot be used, or None when every file is as the manifest says."""
        try:
            manifest = files.read_json(self.path / MANIFEST)
        except ValueError:
            return f"{MANIFEST} is damaged"
        if manifest is None:
            return f"{MANIFEST} is missing: writing it was interrupted"
        for name, expected in manifest["files"].items():
            file = self.path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != expected["size"] or _sha256(file) != expected["sha256"]:
                return f"{name} differs from what was written"
        return None

    def state(self) -> dict[str, Any]:
        """What was passed to `write` as `state`."""
        state: dict[str, Any] = files.read_json(self.path / STATE)
        return state


def folder_of(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of a step is; the number is padded, so that names sort by step."""
    return checkpoints / f"step-{step:08d}"


def write(checkpoints: Path, step: int, content: Mapping[str, bytes], state: Mapping[str, Any]) -> Checkpoint:
    """Write the checkpoint of `step`; it counts only when the last file, the manifest, is on disk.

    Raises: TrainingError, when the disk is full or the folder cannot be written.
    """
    folder = folder_of(checkpoints, step)
    whole = dict(content) | {STATE: _json(state)}
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        for name, data in whole.items():
            files.write_whole(folder / name, data)
        sums = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in whole.items()}
        files.write_json(folder / MANIFEST, {"step": step, "files": sums})
        files.flush_folder(checkpoints)
    except OSError as error:
        raise TrainingError(
            f"checkpoint {str(folder)!r}: cannot be written: {error.strerror}, expected free space and write access; "
            "earlier checkpoints are kept"
        ) from error
    return Checkpoint(folder)


def list_checkpoints(checkpoints: Path) -> list[Checkpoint]:
    """All checkpoint folders, oldest step first; the order is by number, never by the clock."""
    found = [Checkpoint(path) for path in checkpoints.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def newest_complete(checkpoints: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that can be used, and for each newer one why it was passed over."""
    passed_over: list[str] = []
    for checkpoint in reversed(list_checkpoints(checkpoints)):
        if (problem := checkpoint.problem()) is None:
            return checkpoint, passed_over
        passed_over.append(f"checkpoint {checkpoint.path.name} is passed over: {problem}")
    return None, passed_over


def rotate(checkpoints: Path, keep: int, protected: Iterable[int]) -> None:
    """Delete old checkpoints, except the newest `keep` and the steps in `protected`."""
    for checkpoint in list_checkpoints(checkpoints)[:-keep]:
        if checkpoint.step not in set(protected):
            (checkpoint.path / MANIFEST).unlink(missing_ok=True)  # from here on it does not count
            shutil.rmtree(checkpoint.path, ignore_errors=True)


def optimizer_bytes(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> tuple[bytes, list[dict[str, Any]]]:
    """The optimizer's tensors by parameter name, and its groups' settings. `names` maps id(parameter) to its name."""
    tensors = {
        f"{names[id(parameter)]}/{key}": value.detach().cpu().contiguous()
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
        if isinstance(value, torch.Tensor)
    }
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return save(tensors), groups


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], file: Path, groups: list[dict[str, Any]]
) -> None:
    """Put back what `optimizer_bytes` gave.

    Raises: TrainingError, when the file does not hold the state of exactly these parameters.
    """
    tensors = load_file(file)
    state: dict[int, dict[str, torch.Tensor]] = {}
    number = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            prefix = f"{names[id(parameter)]}/"
            values = {key.removeprefix(prefix): tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}
            if values:
                state[number] = values
            number += 1
    if tensors:
        raise TrainingError(f"{file}: holds state of {next(iter(tensors))!r}, which this run does not train")
    numbered = optimizer.state_dict()["param_groups"]
    merged = [saved | {"params": current["params"]} for saved, current in zip(groups, numbered, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": merged})


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


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
