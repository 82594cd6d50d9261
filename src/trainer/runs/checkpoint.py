"""Checkpoints: everything that training needs to resume, with a manifest, written last, that says what is whole.

A checkpoint is a folder `step-<step>` of safetensors and JSON; nothing is pickled. `MANIFEST.json` holds size and
sha256 of every file. Without it, or with a file that differs from it, the checkpoint does not count: so it does not
matter in which order a crash, a full disk or a network mount let the files appear. No folder is ever renamed, which
mounted object stores cannot do in one step.
"""

import contextlib
import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import TrainingError
from trainer.runs import files
from trainer.runs.process import is_alive, this_process

MANIFEST = "MANIFEST.json"
STATE = "state.json"
FORMAT = 1  # of MANIFEST; checkpoints of version 0.1.0 carry no number and are of the same form
READER = "reader-"
FOLDER = re.compile(r"step-[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that may or may not be complete; `problem()` tells."""

    path: Path

    @property
    def step(self) -> int:
        return int(self.path.name.removeprefix("step-"))

    def problem(self, reads: bool = True) -> str | None:
        """Reason why this checkpoint cannot be used; None when every file is as the manifest says.

        A list that must not take long leaves out to read the files, and compares their sizes.

        Raises: ConfigError, when it is whole and a newer version wrote it.
        """
        try:
            manifest = files.read_json(self.path / MANIFEST)
            if manifest is None:
                return f"{MANIFEST} is missing: writing it was interrupted"
            is_whole = manifest.pop("sha256", None) == _digest(manifest)  # a rule of all formats
        except (ValueError, TypeError, AttributeError):
            return f"{MANIFEST} is damaged"
        except OSError as error:
            return f"{MANIFEST} cannot be read: {error.strerror}"
        if not is_whole:
            return f"{MANIFEST} is damaged"
        files.refuse_newer(self.path / MANIFEST, manifest.get("format"), FORMAT)
        expected = [(name, entry["size"], entry["sha256"]) for name, entry in manifest["files"].items()]
        if problem := next((problem for entry in expected if (problem := self._file_problem(*entry, reads))), None):
            return problem
        return self._name_problem(manifest.get("step"))

    def contents(self) -> dict[str, tuple[int, str]]:
        """Size and sha256 of each file as the manifest has them, which `problem` has found whole."""
        entries = files.read_json(self.path / MANIFEST)["files"]
        return {name: (entry["size"], entry["sha256"]) for name, entry in entries.items()}

    def _name_problem(self, step: Any) -> str | None:
        """A copy under another step's name would be trained on as if it had come that far."""
        if not self.path.name.startswith("step-"):
            return None
        saved = self.state().get("step", step) if (self.path / STATE).is_file() else step
        other = next((found for found in (step, saved) if found != self.step), None)
        return None if other is None else f"it was written at step {other}, and its folder has the name of another"

    def _file_problem(self, name: str, size: int, sha256: str, reads: bool) -> str | None:
        file = self.path / name
        try:
            if file.stat().st_size == size and (not reads or _sha256(file) == sha256):
                return None
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        return f"{name} differs from what was written"

    def state(self) -> dict[str, Any]:
        """The state that `write` got."""
        state: dict[str, Any] = files.read_json(self.path / STATE)
        return state

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep the checkpoint from being deleted by the run's own process while the block reads it."""
        marker = self.path / f"{READER}{secrets.token_hex(4)}.json"
        with contextlib.suppress(OSError):  # a folder that cannot be written cannot be rotated either
            files.write_flushed(marker, json.dumps(this_process()).encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                marker.unlink()

    @property
    def is_read(self) -> bool:
        return any(_is_alive(marker) for marker in self.path.glob(f"{READER}*"))

    def delete(self) -> None:
        """Remove the folder; a link in its place stays, and what it leads to."""
        if self.path.is_symlink():
            return
        with contextlib.suppress(OSError):
            (self.path / MANIFEST).unlink()  # from here on it does not count
        shutil.rmtree(self.path, ignore_errors=True)


def folder_of(checkpoints: Path, step: int) -> Path:
    """Folder of the checkpoint of a step; the number is padded, so that names sort by step."""
    return checkpoints / f"step-{step:08d}"


def write(checkpoints: Path, step: int, content: Mapping[str, bytes], state: Mapping[str, Any]) -> Checkpoint:
    """Write the checkpoint of `step`; it counts only when the last file, the manifest, is on disk.

    Raises: TrainingError, when the disk is full or the folder cannot be written.
    """
    checkpoint = Checkpoint(folder_of(checkpoints, step))
    whole = dict(content) | {STATE: json.dumps(state, allow_nan=False).encode()}
    sealed = make_manifest(step, whole)
    try:
        if checkpoint.path.exists():
            checkpoint.delete()
        checkpoint.path.mkdir(parents=True)
        for name, data in whole.items():
            files.write_flushed(checkpoint.path / name, data)
        files.flush_folder(checkpoint.path)
        files.write_flushed(checkpoint.path / MANIFEST, sealed)
        files.flush_folder(checkpoint.path)
        files.flush_folder(checkpoints)
    except OSError as error:
        checkpoint.delete()
        raise TrainingError(
            f"checkpoint {str(checkpoint.path)!r}: cannot be written: {error.strerror}, expected free space and write "
            "access; earlier checkpoints are kept"
        ) from error
    return checkpoint


def make_manifest(step: int | None, content: Mapping[str, bytes]) -> bytes:
    """Size and sha256 of each file, and a digest of the manifest itself."""
    entries = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in content.items()}
    manifest = {"format": FORMAT, "step": step, "files": entries}
    return json.dumps(manifest | {"sha256": _digest(manifest)}, indent=2).encode()


def list_checkpoints(checkpoints: Path) -> list[Checkpoint]:
    """All checkpoint folders, oldest step first; the order is by number, never by the clock."""
    found = [Checkpoint(path) for path in checkpoints.glob("step-*") if FOLDER.fullmatch(path.name)]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def newest_complete(checkpoints: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that can be used, and for each later one why it was passed over.

    Raises: ConfigError, when a newer version wrote one: what is passed over is written anew.
    """
    passed_over: list[str] = []
    for checkpoint in reversed(list_checkpoints(checkpoints)):
        if (problem := checkpoint.problem()) is None:
            return checkpoint, passed_over
        passed_over.append(f"checkpoint {checkpoint.path.name} is passed over: {problem}")
    return None, passed_over


def rotate(checkpoints: Path, newest: int, keep: int, protected: Collection[int]) -> None:
    """Delete what is older than the newest `keep` up to the step `newest`, which has just been written.

    The steps in `protected` stay, and so does what is being read.
    """
    earlier = [checkpoint for checkpoint in list_checkpoints(checkpoints) if checkpoint.step <= newest]
    for checkpoint in earlier[:-keep]:
        if checkpoint.step not in protected and not checkpoint.is_read:
            checkpoint.delete()


def forget_after(checkpoints: Path, step: int) -> None:
    """Delete the checkpoints of later steps: those that a resumed run passed over, and will write anew."""
    for checkpoint in list_checkpoints(checkpoints):
        if checkpoint.step > step:
            checkpoint.delete()


def _digest(manifest: Mapping[str, Any]) -> str:
    """Of the manifest itself, so that no flipped bit in it can go unseen."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _is_alive(marker: Path) -> bool:
    try:
        return is_alive(files.read_json(marker) or {})
    except (ValueError, OSError):
        return False
