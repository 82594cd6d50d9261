"""The folder of fetched files: each in a folder named by its content, with a record of its origin beside it.

A file appears whole or not at all. Of each address the store remembers the newest copy, so that what has not changed is
not fetched again.
"""

import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from trainer.data.fetch.compressed import unpacked
from trainer.data.fetch.limits import Limited
from trainer.data.quoting import printable
from trainer.data.read.origins import origin_beside, record_of
from trainer.errors import DataError, file_words
from trainer.runs.files import cache_folder, read_record, sha256_of, write_json
from trainer.runs.manifest import Origin

DIGEST_CHARS = 32
PART, LEFT_SECONDS = ".part-", 60.0
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Fetched:
    """The end of a transfer: the file's name at its source, and the version of it that was fetched."""

    name: str
    revision: str | None


# Writes what an address holds; None where it still is the revision given. Raises: DataError, ConfigError.
Download = Callable[[str | None, Limited], Fetched | None]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the store."""

    path: Path
    origin: Origin


def store_folder() -> Path:
    """The folder of fetched files, below the cache folder."""
    return cache_folder().absolute() / "sources"


def kept(address: str) -> StoredFile | None:
    """The newest copy of what an address holds, if it is still as it was fetched."""
    record = read_record(_index(address))
    path = store_folder() / str(record.get("file", ""))
    try:
        digest = sha256_of(path) if path.is_file() else None
    except OSError:
        return None
    origin = origin_beside(path, digest) if digest else None
    return StoredFile(path, origin) if origin is not None and origin.address == address else None


def fetch(address: str, download: Download, *, may_ask: bool = True) -> tuple[StoredFile, bool]:
    """Put what `address` holds into the store, unpacked; True where it was fetched now.

    Without `may_ask` a copy that is there is taken for the newest one.

    Raises: DataError, and what `download` does; nothing half-written stays.
    """
    with _alone(address):
        known = kept(address)
        if known is not None and not may_ask:
            return known, False
        with _temporary(address) as raw:
            fetched = download(known.origin.revision if known is not None else None, Limited(raw, address))
            if fetched is None:
                assert known is not None, "only a copy has a revision"
                return known, False
            with _written(address):
                origin = Origin(address, fetched.revision, _digest(raw), raw.tell())
            with _temporary(address) as plain:
                name = unpacked(raw, plain, fetched.name, address)
                with _written(address):
                    return _keep(address, plain if name else raw, name or fetched.name, origin), True


def _keep(address: str, file: IO[bytes], name: str, origin: Origin) -> StoredFile:
    digest = _digest(file)
    folder = store_folder() / f"{digest[:DIGEST_CHARS]}-{_key(address)[:8]}"
    path = folder / _plain_name(name)
    folder.mkdir(mode=0o700, exist_ok=True)
    file.flush()
    os.fsync(file.fileno())
    Path(file.name).replace(path)
    write_json(record_of(path), {**asdict(origin), "file_sha256": digest})
    write_json(_index(address), {"file": str(path.relative_to(store_folder()))})
    return StoredFile(path, origin)


def _plain_name(name: str) -> str:
    """A name without folders, of characters that no shell and no page minds."""
    kept_chars = "".join(char if char.isalnum() or char in "._-" else "_" for char in name.rpartition("/")[2])
    return kept_chars.lstrip(".")[-80:] or "data.jsonl"


def _key(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()


def _index(address: str) -> Path:
    return store_folder() / f"{_key(address)[:DIGEST_CHARS]}.json"


def _digest(file: IO[bytes]) -> str:
    file.flush()
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(_PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


@contextmanager
def _alone(address: str) -> Iterator[None]:
    """One process at a time fetches an address; the others then find it."""
    with _written(address):
        store_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep()
        handle = os.open(_index(address).with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sweep() -> None:
    """Remove what killed processes left: files that nobody holds, and nobody has just made."""
    for path in store_folder().glob(f"{PART}*"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if time.time() - path.stat().st_mtime > LEFT_SECONDS:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


@contextmanager
def _temporary(address: str) -> Iterator[IO[bytes]]:
    """A file of the store without a lasting name; it goes with the block, unless it was given one."""
    with _written(address):
        file = tempfile.NamedTemporaryFile(dir=store_folder(), prefix=PART, delete=False)  # noqa: SIM115
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until its end: `_sweep` tells by it who is gone
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):  # it may have been given a name that lasts
            Path(file.name).unlink()


@contextmanager
def _written(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{printable(address)}: cannot be kept in {store_folder()} ({file_words(error)}), expected room and "
            "permission to write; make room, or name another folder in TRAINER_CACHE"
        ) from error
