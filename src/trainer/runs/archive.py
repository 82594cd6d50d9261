"""A checkpoint as one tar file, made while it is sent: no copy on disk, a block at a time in memory.

Every byte is held against the manifest on its way. What differs ends the archive before its end, so that a client,
which was told the whole size, reports a download that failed.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from trainer.errors import ConfigError, TrainingError
from trainer.runs.checkpoint import MANIFEST, Checkpoint

BLOCK_BYTES = 1024 * 1024
ADAPTER = ("adapter_model.safetensors", "adapter_config.json")
SENT = (".safetensors", ".json", ".jsonl", ".csv")  # files that a checkpoint is made of; none of them is code
MODE = 0o644


@dataclass(frozen=True, slots=True)
class CheckpointArchive:
    """Name and size of the archive, and its bytes in `blocks()`."""

    checkpoint: Checkpoint
    folder: str  # in the archive
    files: dict[str, tuple[int, str]]  # size and sha256

    @property
    def name(self) -> str:
        return f"{self.folder}.tar"

    @property
    def num_bytes(self) -> int:
        padded = sum(tarfile.BLOCKSIZE + _padded(size) for size, _ in self.files.values())
        return padded + 2 * tarfile.BLOCKSIZE

    def blocks(self) -> Iterator[bytes]:
        """The archive's bytes; the checkpoint stays until the last of them. Raises: TrainingError."""
        with self.checkpoint.reading():
            for name, (size, sha256) in self.files.items():
                yield self._header(name, size)
                yield from self._content(name, size, sha256)
                yield b"\0" * (_padded(size) - size)
        yield b"\0" * 2 * tarfile.BLOCKSIZE

    def _header(self, name: str, size: int) -> bytes:
        entry = tarfile.TarInfo(f"{self.folder}/{name}")
        entry.size, entry.mode = size, MODE
        entry.mtime = int((self.checkpoint.path / name).stat().st_mtime)
        return entry.tobuf(tarfile.GNU_FORMAT)

    def _content(self, name: str, size: int, sha256: str) -> Iterator[bytes]:
        digest, left = hashlib.sha256(), size
        with (self.checkpoint.path / name).open("rb") as file:
            while block := file.read(min(BLOCK_BYTES, left)):
                digest.update(block)
                left -= len(block)
                if not left and digest.hexdigest() != sha256:
                    break
                yield block
        if left or digest.hexdigest() != sha256:
            raise TrainingError(
                f"{self.checkpoint.path / name}: differs from what was written, expected the file of the checkpoint; "
                "take another checkpoint"
            )


def archive_of(checkpoint: Checkpoint, run_name: str, adapter_only: bool = False) -> CheckpointArchive:
    """All of a checkpoint with its manifest, or the adapter in PEFT's format.

    Raises: ConfigError, when it is not whole or holds nothing to download.
    """
    what = f"run {run_name!r}, step {checkpoint.step}"
    if problem := checkpoint.problem(reads=False):
        raise ConfigError(f"{what}: {problem}, expected a complete checkpoint; take another one")
    found = checkpoint.contents()
    if not set(ADAPTER) <= set(found):
        raise ConfigError(f"{what}: holds no adapter, expected {' and '.join(ADAPTER)}; the service keeps its model")
    if odd := [name for name in found if PurePath(name).name != name or PurePath(name).suffix not in SENT]:
        raise ConfigError(f"{what}: holds {', '.join(map(repr, odd))}, expected files that end in {', '.join(SENT)}")
    folder = f"{run_name}-step-{checkpoint.step}"
    if adapter_only:
        return CheckpointArchive(checkpoint, folder, {name: found[name] for name in ADAPTER})
    manifest = (checkpoint.path / MANIFEST).read_bytes()
    whole = found | {MANIFEST: (len(manifest), hashlib.sha256(manifest).hexdigest())}
    return CheckpointArchive(checkpoint, f"{folder}-checkpoint", whole)


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
