"""The reference of preference training: log-probabilities of every answer by the model that training stays close to.

They are computed once, before the first step, and kept in the run's folder under the digest of all that they depend on.
A run that is resumed reads them, so that it continues with the same numbers.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save

from trainer.runs import files
from trainer.training.dataset import Rows
from trainer.training.fingerprint import BASE_MODEL, PARENT_ADAPTER, Fingerprint
from trainer.training.pairs import Pair, PairExecutor

READ_ROWS = 256  # at a time: between two parts a request to stop is seen
LOGPS = "logps"
DEPENDS_ON = (BASE_MODEL, "the base model's config", "model.quantization", "model.dtype")

Array = NDArray[np.float64]


class Pairs(Sequence[Pair]):
    """Rows as pairs, each with the reference's log-probabilities [R, 2]; zeros before they are known."""

    def __init__(self, rows: Rows, reference: Array | None = None) -> None:
        self.rows = rows
        self.reference = np.zeros((len(rows), 2)) if reference is None else reference

    @overload
    def __getitem__(self, place: int) -> Pair: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Pair, ...]: ...
    def __getitem__(self, place: int | slice) -> Pair | tuple[Pair, ...]:
        if isinstance(place, slice):
            return tuple(self[number] for number in range(*place.indices(len(self))))
        preferred, other = self.rows[place].examples
        of_preferred, of_other = self.reference[place].tolist()
        return Pair((preferred,), (other,), (of_preferred, of_other))

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class ReferenceFile:
    """The file of a run that keeps the log-probabilities of its pairs."""

    path: Path
    digest: str

    def load(self, num_pairs: int) -> Array | None:
        """Log-probabilities of all pairs [R, 2], or None where the file holds something else."""
        try:
            content = self.path.read_bytes()
            length = int.from_bytes(content[:8], "little")
            notes = json.loads(content[8 : 8 + length])["__metadata__"]
            logps: Array = load(content)[LOGPS].numpy()
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None
        known = notes == self._notes(logps)
        return logps if known and logps.shape == (num_pairs, 2) and logps.dtype == np.float64 else None

    def store(self, logps: Array) -> None:
        """Keep them for a resumed run."""
        files.write_whole(self.path, save({LOGPS: torch.from_numpy(logps)}, self._notes(logps)))

    def _notes(self, logps: Array) -> dict[str, str]:
        """The digest of what the numbers depend on and of themselves."""
        return {"digest": hashlib.sha256(self.digest.encode() + logps.tobytes()).hexdigest()}


def find_reference(
    path: Path, parts: Sequence[Pairs], fingerprint: Fingerprint, kind: Literal["base", "run"]
) -> ReferenceFile:
    """The file for these pairs, and this base or the adapter that training starts from."""
    digest = hashlib.sha256(json.dumps(_depends_on(fingerprint, kind), sort_keys=True).encode())
    for part in parts:
        tokens = part.rows.tokens
        for array in (part.rows.numbers, tokens.ids, tokens.trained, tokens.starts, tokens.firsts):
            digest.update(array.tobytes())
    return ReferenceFile(path, digest.hexdigest())


def _depends_on(fingerprint: Mapping[str, Any], kind: str) -> dict[str, Any]:
    names = (*DEPENDS_ON, PARENT_ADAPTER) if kind == "run" else DEPENDS_ON
    return {"reference": kind} | {name: fingerprint[name] for name in names}


def compute_reference(
    executor: PairExecutor, pairs: Pairs, kind: Literal["base", "run"], may_go_on: Callable[[int], bool]
) -> Array | None:
    """Log-probabilities [R, 2] by the model as training starts, or by its base alone.

    None where `may_go_on`, which is told of each part the number of rows, says so. Raises: TrainingError.
    """
    model = executor.model
    training = model.training
    model.eval()
    parts: list[Array] = []
    for start in range(0, len(pairs), READ_ROWS):
        if not may_go_on(start):
            return None
        with model.disable_adapter() if kind == "base" else nullcontext():
            logps, _ = executor.logps(pairs[start : start + READ_ROWS], 0)
        parts.append(logps.cpu().numpy())
    model.train(training)
    return np.concatenate([np.zeros((0, 2)), *parts])
