"""An owner's folders below the runs: files and uploads, each a folder that gets its name when it is whole.

What is being written stands in `incoming`, locked by its writer. What a killed server left there has no lock.
"""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from trainer.api.errors import ApiError
from trainer.runs import flock
from trainer.runs.files import flush_folder, write_whole

FOLDER = ".api"  # hidden, so no run
CONTENT, PART, RESERVED, RECORD = "content", "part_", "reserved", "record.json"
ONCE_SECONDS = 30 * 86_400  # for which a request may be repeated
STEP_BYTES = 64 * 2**20  # by which room is reserved for a body of unknown length


def home_of(root: Path, owner: str) -> Path:
    """The folder of everything that belongs to an owner's key, except runs."""
    return root / FOLDER / owner


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the owner's lock, for milliseconds: between this and other servers of the same runs."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = flock.wait_for(home / "lock")
    try:
        yield
    finally:
        os.close(handle)


class Incoming:
    """A folder with the content that arrives. It gets its name by `become`, or is gone with `close`.

    `max_bytes` bounds everything that its owner has, this content included; None is no bound.
    """

    def __init__(self, home: Path, max_bytes: int | None = None) -> None:
        self.home, self.max_bytes = home, max_bytes
        self.folder = home / "incoming" / secrets.token_hex(8)
        self.num_bytes, self.reserved, self.digest = 0, 0, sha256()
        with locked(home):  # so that nobody takes it for left behind before it has its own lock
            self.folder.mkdir(mode=0o700, parents=True)
            self.handle: int | None = flock.take(self.folder.with_suffix(".lock"))
        self.file = (self.folder / CONTENT).open("xb", buffering=0)

    def reserve(self, num_bytes: int) -> None:
        """Keep room for so many bytes. Raises: ApiError, where the owner may not have as many."""
        if self.max_bytes is None or num_bytes <= self.reserved:
            return
        with locked(self.home):
            others = used_bytes(self.home, except_for=self.folder)
            if others + num_bytes > self.max_bytes:
                raise _no_room(others, num_bytes, self.max_bytes)
            write_whole(self.folder / RESERVED, str(num_bytes))
        self.reserved = num_bytes

    def write(self, data: bytes | memoryview) -> None:
        """Append. Raises: ApiError, where the owner may not have as many bytes."""
        wanted = self.num_bytes + len(data)
        if wanted > self.reserved:
            self._reserve_more(wanted)
        rest = memoryview(data)
        while rest:
            rest = rest[self.file.write(rest) :]
        self.digest.update(data)
        self.num_bytes = wanted

    def _reserve_more(self, wanted: int) -> None:
        try:
            self.reserve(wanted + STEP_BYTES)
        except ApiError:
            self.reserve(wanted)

    def become(self, folder: Path, content: str, record: str) -> None:
        """Flush, and take the place and name of a new folder with `content` and record.json. Raises: OSError."""
        os.fsync(self.file.fileno())
        self.file.close()
        (self.folder / CONTENT).replace(self.folder / content)
        (self.folder / RESERVED).unlink(missing_ok=True)
        write_whole(self.folder / RECORD, record)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        with locked(self.home):  # it is counted once, on one side or the other
            self.folder.replace(folder)
        flush_folder(folder.parent)

    def close(self) -> None:
        """End, whatever has become of it."""
        self.file.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.handle is not None:
            self.folder.with_suffix(".lock").unlink(missing_ok=True)
            os.close(self.handle)
            self.handle = None


def make_folder(home: Path, folder: Path, record: str, num_bytes: int, max_bytes: int | None) -> None:
    """A folder with its record.json and room for so many bytes. Raises: ApiError, where its owner may not have them."""
    with locked(home):
        others = used_bytes(home)
        if max_bytes is not None and others + num_bytes > max_bytes:
            raise _no_room(others, num_bytes, max_bytes)
        beside = home / "incoming" / secrets.token_hex(8)
        beside.mkdir(mode=0o700, parents=True)
        write_whole(beside / RESERVED, str(num_bytes))
        write_whole(beside / RECORD, record)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        beside.replace(folder)
    flush_folder(folder.parent)


def remove_folder(home: Path, folder: Path) -> bool:
    """Remove a folder in one step for all who look; False where it is gone already."""
    gone = home / "incoming" / secrets.token_hex(8)
    gone.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        folder.rename(gone)
    except FileNotFoundError:
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True


def sweep(root: Path) -> None:
    """Remove what a killed server left half-written, of every owner; what another one is writing stays.

    With it go the ids of requests that nobody repeats any more.
    """
    for record in root.glob(f"{FOLDER}/*/once/*"):
        with contextlib.suppress(FileNotFoundError):  # another server of these runs begins, too
            if time.time() - record.stat().st_mtime > ONCE_SECONDS:
                record.unlink()
    for incoming in root.glob(f"{FOLDER}/*/incoming"):
        with locked(incoming.parent):
            # A folder may have no lock yet, and a lock no folder any more.
            for folder in {entry.with_suffix("") for entry in incoming.iterdir()}:
                lock = folder.with_suffix(".lock")
                if (handle := flock.take(lock)) is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    lock.unlink(missing_ok=True)
                    os.close(handle)


def used_bytes(home: Path, except_for: Path | None = None) -> int:
    """Bytes of an owner's files and uploads, with what is reserved for those that arrive."""
    kept = sum(_size(folder) for folder in _folders(home / "files"))
    arriving = [folder for folder in _folders(home / "incoming") if folder != except_for]
    uploads = _folders(home / "uploads")
    return kept + sum(max(_reserved(folder), _size(folder)) for folder in [*arriving, *uploads])


def _folders(parent: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(parent) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _size(folder: Path) -> int:
    """Bytes of the contents in a folder, not of its records."""
    with contextlib.suppress(FileNotFoundError):  # it is removed, or has just got its name
        return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.name.startswith((CONTENT, PART)))
    return 0


def _reserved(folder: Path) -> int:
    try:
        return int((folder / RESERVED).read_text())
    except (OSError, ValueError):
        return 0


def _no_room(others: int, num_bytes: int, most: int) -> ApiError:
    found = f"{num_bytes:,} bytes beside the {others:,} that you have are more than the {most:,} of your key"
    return ApiError(403, f"file: {found}; delete files that you no longer need", "storage_quota_exceeded", "file")
