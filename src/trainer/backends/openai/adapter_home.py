"""The adapter of a job on a server of this trainer: a result file that comes home, verified before it counts."""

import hashlib
import re
import shutil
import zipfile
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from trainer.backends.http import Say, patiently
from trainer.backends.openai.client import FineTuningService, Record
from trainer.backends.openai.upload import get_file
from trainer.errors import BackendError
from trainer.runs import Run
from trainer.runs.checkpoint import Checkpoint

NAME = "adapter.zip"
TOLD = re.compile(rf"{re.escape(NAME)}: (?P<id>\S+), sha256 (?P<sha256>[0-9a-f]{{64}})")
KINDS = (".safetensors", ".json", ".jinja", ".txt", ".model")  # of an adapter and its tokenizer; nothing is pickled
PIECE_BYTES = 2**20


def has_weights(run: Run) -> bool:
    """True once the adapter is here; its folder appears whole."""
    return (run.adapter / "adapter_model.safetensors").is_file()


def bring_adapter(service: FineTuningService, run: Run, job: Record, say: Say) -> None:
    """Fetch the adapter of a job that has succeeded, unless it is here. Raises: BackendError."""
    if not service.is_ours or has_weights(run):
        return
    file = _find(service, job)
    if file is None:  # the server's owner, or another command, has deleted it
        say(
            f"{run.name}: the server has no {NAME} of job {job['id']}; its model answers there: trainer chat {run.path}"
        )
        return
    packed, folder = run.path / f".{NAME}.tmp", run.path / ".adapter.tmp"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        digest = patiently(lambda: _download(service, str(file["id"]), packed), f"fetching {NAME}", say)
        _hold(file, packed, digest, _told(run, str(file["id"])))
        _unpack(packed, folder)
        if problem := Checkpoint(folder).problem():
            raise BackendError(
                f"{NAME} of job {job['id']}: {problem}, expected the adapter as it was stored; try again"
            )
        folder.rename(run.adapter)
    finally:
        packed.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    run.event(f"the adapter is here, sha256 of its file {digest}", sha256=digest)
    say(f"adapter: {run.adapter}")


def is_metrics(service: FineTuningService, file_id: str, say: Say) -> bool:
    """True for a result file with measurements; a server of this trainer has others beside it."""
    if not service.is_ours:
        return True
    file = patiently(lambda: get_file(service, file_id), f"reading the result file {file_id}", say)
    return str(file.get("filename")).endswith(".csv")


def _find(service: FineTuningService, job: Record) -> Record | None:
    for item in job.get("result_files") or []:
        file = patiently(partial(get_file, service, str(item)), f"reading the result file {item}")
        if file.get("filename") == NAME:
            return file
    return None


def _told(run: Run, file_id: str) -> str:
    """The digest that the job's events name; empty where they do not."""
    for event in run.events():
        if (found := TOLD.search(str(event.get("message")))) and found["id"] == file_id:
            return found["sha256"]
    return ""


def _download(service: FineTuningService, file_id: str, target: Path) -> str:
    """Write the file, a piece at a time; returns its sha256."""
    digest = hashlib.sha256()
    with service.streaming().files.with_streaming_response.content(file_id) as response, target.open("wb") as file:
        for piece in response.iter_bytes(PIECE_BYTES):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def _hold(file: Record, packed: Path, digest: str, told: str) -> None:
    """Raises: BackendError, for other bytes than the server has stored."""
    size = packed.stat().st_size
    if size != file.get("bytes") or told not in ("", digest):
        raise BackendError(
            f"{NAME}: {size:,} bytes with sha256 {digest} came, expected {file.get('bytes'):,} with {told or 'any'}; "
            "try again"
        )


def _unpack(packed: Path, folder: Path) -> None:
    """Raises: BackendError, for an archive that holds anything but an adapter's files."""
    try:
        with zipfile.ZipFile(packed) as archive:
            for entry in archive.infolist():
                target = folder / _inside(entry)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("xb") as file:
                    _copy(source, file, entry.file_size)
    except BackendError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError) as error:  # zipfile raises each of them
        raise BackendError(f"{NAME}: cannot be unpacked: {error}; try again") from error


def _inside(entry: zipfile.ZipInfo) -> PurePosixPath:
    """Raises: BackendError, for a path that leads out of the folder, or a file of another kind."""
    path = PurePosixPath(entry.filename)
    is_plain = not path.is_absolute() and ".." not in path.parts and "\\" not in entry.filename and path.parts
    is_stored = entry.compress_type == zipfile.ZIP_STORED and entry.external_attr >> 28 in (0, 8)
    if not is_plain or not is_stored or path.suffix not in KINDS:
        raise BackendError(
            f"{NAME}: holds {entry.filename!r}, expected the files of an adapter; ask the server's owner"
        )
    return path


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    """An archive says how large each file is; one that goes on is cut off by its checksum."""
    left = size
    while left and (piece := source.read(min(PIECE_BYTES, left))):
        target.write(piece)
        left -= len(piece)
