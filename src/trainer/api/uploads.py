"""`/v1/uploads`: a file in parts, which may come in any order and at once; completed, it is a file like any other.

The file's id stands in the upload's record from the beginning: however often it is completed, also after a kill, there
is one file.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio.to_thread
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from trainer.api import files
from trainer.api.bodies import read
from trainer.api.errors import ApiError, invalid, not_found
from trainer.api.folders import PART, RECORD, RESERVED, Incoming, home_of, make_folder, remove_folder
from trainer.api.forms import MAX_NAME_CHARACTERS, StreamedForm, plain_name, pour
from trainer.api.idempotency import one_id
from trainer.api.keys import api_settings_of, caller_of
from trainer.config.fields import Section
from trainer.runs import flock
from trainer.runs.files import flush_folder, read_record, write_whole
from trainer.web.routes import Access, Route

LIFE_SECONDS = 3600
MAX_PART_BYTES = 64 * 2**20
MAX_FORM_BYTES = MAX_PART_BYTES + files.MAX_FORM_BYTES
MAX_PARTS = 10_000
ID, PART_ID = re.compile(r"upload_[A-Za-z0-9]{1,64}"), re.compile(r"part_[A-Za-z0-9]{1,64}")
ARRIVING = "arriving-"
Status = Literal["pending", "completed", "cancelled", "expired"]


class Life(Section):
    """The end of a file, counted from its making."""

    anchor: str
    seconds: Annotated[int, Field(strict=True)]


class NewUpload(Section):
    """Body of a request that begins an upload."""

    filename: Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)]
    purpose: str
    bytes: Annotated[int, Field(strict=True, ge=1, le=files.MAX_FILE_BYTES)]
    mime_type: Annotated[str, Field(max_length=MAX_NAME_CHARACTERS)]
    expires_after: Life | None = None


class Completion(Section):
    """Body of a request that ends one."""

    part_ids: Annotated[list[str], Field(min_length=1, max_length=MAX_PARTS)]
    md5: Annotated[str, Field(pattern="^[0-9a-fA-F]{32}$")] | None = None


@dataclass(frozen=True)
class UploadRecord:
    """An upload as its record holds it."""

    id: str
    owner: str
    filename: str
    purpose: str
    num_bytes: int
    created_at: int
    file_id: str
    life_seconds: int | None = None
    status: Status = "pending"

    @property
    def expires_at(self) -> int:
        return self.created_at + LIFE_SECONDS

    @property
    def now(self) -> Status:
        """Its status at this moment."""
        return "expired" if self.status == "pending" and time.time() >= self.expires_at else self.status

    def shown(self, file: files.FileRecord | None = None) -> dict[str, Any]:
        """The upload in OpenAI's form."""
        shown = {
            "id": self.id, "object": "upload", "bytes": self.num_bytes, "created_at": self.created_at,
            "filename": self.filename, "purpose": self.purpose, "status": self.now, "expires_at": self.expires_at,
        }  # fmt: skip
        return shown | ({"file": file.shown} if file else {})


def create_upload(request: Request) -> Response:
    """Begin an upload, whose bytes are reserved from now on."""
    body = read(request, NewUpload)
    files.check_purpose(body.purpose)
    life = files.check_life(body.expires_after.anchor, body.expires_after.seconds) if body.expires_after else None
    root, caller = api_settings_of(request).root, caller_of(request)
    _forget_old(home_of(root, caller.name))
    with one_id(request, f"upload {body.model_dump_json()}", lambda: f"upload_{secrets.token_hex(12)}") as name:
        folder = _folder(request, name)
        if (upload := _read(folder)) is None:
            upload = UploadRecord(
                name, caller.name, plain_name(body.filename), body.purpose, body.bytes, int(time.time()),
                files.new_id(), life,
            )  # fmt: skip
            make_folder(home_of(root, caller.name), folder, _as_json(upload), body.bytes, caller.max_bytes)
    return JSONResponse(upload.shown())


async def add_part(request: Request) -> Response:
    """Stream a part to disk; parts may come at the same time."""
    folder, upload = await anyio.to_thread.run_sync(_pending, request)
    name = f"{PART}{secrets.token_hex(12)}"
    most = min(MAX_PART_BYTES, 2 * upload.num_bytes)
    async with _arriving(folder / f"{ARRIVING}{name}", most) as file:
        form = StreamedForm(request.headers.get("content-type", ""), "data", (), file.write)
        await pour(request.stream(), form)
        await anyio.to_thread.run_sync(_keep_part, file, folder, upload, name)
    at = int(time.time())
    return JSONResponse({"id": name, "object": "upload.part", "created_at": at, "upload_id": upload.id})


def complete_upload(request: Request) -> Response:
    """Join the parts in the order of the request. The answer to a repeated request is the same file."""
    body = read(request, Completion)
    folder = _asked(request)
    with _locked(folder):
        upload = _found(folder)
        if upload.now != "completed":
            _check_pending(upload)
            file = _joined(api_settings_of(request).root, folder, upload, body)
            _end(folder, upload, "completed")
        else:
            file = files.find_file(api_settings_of(request).root, upload.owner, upload.file_id)
    return JSONResponse(replace(upload, status="completed").shown(file))


def cancel_upload(request: Request) -> Response:
    """End an upload without a file; its parts are gone."""
    folder = _asked(request)
    with _locked(folder):
        upload = _found(folder)
        _check_pending(upload)
        ended = _end(folder, upload, "cancelled")
    return JSONResponse(ended.shown())


def _joined(root: Path, folder: Path, upload: UploadRecord, body: Completion) -> files.FileRecord:
    parts = [_part(folder, name) for name in body.part_ids]
    if (found := sum(part.stat().st_size for part in parts)) != upload.num_bytes:
        raise invalid("part_ids", f"hold {found:,} bytes, expected the {upload.num_bytes:,} of the upload")
    with contextlib.suppress(ApiError):  # joined before, by a server that was killed before it could say so
        return files.find_file(root, upload.owner, upload.file_id)
    incoming, md5 = Incoming(home_of(root, upload.owner)), hashlib.md5(usedforsecurity=False)
    try:
        for piece in _pieces(parts):
            incoming.write(piece)
            md5.update(piece)
        if body.md5 and md5.hexdigest() != body.md5.lower():
            raise invalid("md5", f"is {body.md5}, and that of the parts in this order is {md5.hexdigest()}")
        return files.keep(
            root, upload.owner, incoming, upload.filename, upload.purpose, upload.file_id, upload.life_seconds
        )
    finally:
        incoming.close()


def _pieces(parts: list[Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as file:
            yield from iter(functools.partial(file.read, files.PIECE_BYTES), b"")


def _part(folder: Path, name: str) -> Path:
    path = folder / name
    if not PART_ID.fullmatch(name) or not path.is_file():
        raise invalid("part_ids", f"{name[:80]!r} is no part of this upload")
    return path


class _PartFile:
    """The bytes of a part that arrives: no more than may be kept of it."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path, self.max_bytes, self.num_bytes = path, max_bytes, 0
        self.file = path.open("xb", buffering=0)

    def write(self, data: bytes) -> None:
        self.num_bytes += len(data)
        if self.num_bytes > self.max_bytes:
            raise ApiError(413, f"data: is longer than {self.max_bytes:,} bytes", "request_too_large", "data")
        rest = memoryview(data)
        while rest:
            rest = rest[self.file.write(rest) :]


@contextlib.asynccontextmanager
async def _arriving(path: Path, max_bytes: int) -> AsyncIterator[_PartFile]:
    file = await anyio.to_thread.run_sync(_PartFile, path, max_bytes)
    try:
        yield file
    finally:
        file.file.close()
        path.unlink(missing_ok=True)


def _keep_part(file: _PartFile, folder: Path, upload: UploadRecord, name: str) -> None:
    """Flush the part and name it. A repeated part counts again, so there is room for each one twice."""
    if not file.num_bytes:
        raise invalid("data", "is empty, expected bytes")
    os.fsync(file.file.fileno())
    with _locked(folder):
        _check_pending(_found(folder))
        present = [entry.stat().st_size for entry in os.scandir(folder) if entry.name.startswith(PART)]
        most = 2 * upload.num_bytes
        if sum(present) + file.num_bytes > most or len(present) >= MAX_PARTS:
            raise invalid("data", f"{len(present):,} parts are there, and may have {most:,} bytes: twice the upload's")
        file.path.rename(folder / name)
        flush_folder(folder)


def _pending(request: Request) -> tuple[Path, UploadRecord]:
    folder = _asked(request)
    upload = _found(folder)
    _check_pending(upload)
    return folder, upload


def _check_pending(upload: UploadRecord) -> None:
    if upload.now != "pending":
        raise ApiError(400, f"upload: is {upload.now}, expected one that is pending", "invalid_value", "upload_id")


def _end(folder: Path, upload: UploadRecord, status: Status) -> UploadRecord:
    """Write the status first: parts without a record of them would be lost work, the other way round only waste."""
    ended = replace(upload, status=status)
    write_whole(folder / RECORD, _as_json(ended))
    for entry in os.scandir(folder):
        if entry.name.startswith((PART, RESERVED)):
            Path(entry.path).unlink(missing_ok=True)
    return ended


def _forget_old(home: Path) -> None:
    """Remove the uploads whose time is over, with the parts of those that nobody completed."""
    for folder in (home / "uploads").glob("upload_*"):
        if (upload := _read(folder)) and time.time() >= upload.expires_at:
            remove_folder(home, folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an upload, so that it ends once. Raises: ApiError, where it is gone."""
    try:
        handle = flock.wait_for(folder / "lock")
    except FileNotFoundError:
        raise not_found("Upload", folder.name) from None
    try:
        yield
    finally:
        os.close(handle)


def _asked(request: Request) -> Path:
    name: str = request.path_params["id"]
    if not ID.fullmatch(name):
        raise not_found("Upload", name)
    return _folder(request, name)


def _folder(request: Request, name: str) -> Path:
    return home_of(api_settings_of(request).root, caller_of(request).name) / "uploads" / name


def _found(folder: Path) -> UploadRecord:
    if (upload := _read(folder)) is None:
        raise not_found("Upload", folder.name)
    return upload


def _read(folder: Path) -> UploadRecord | None:
    try:
        return UploadRecord(**read_record(folder / RECORD))
    except TypeError:  # none, or one of a later version
        return None


def _as_json(upload: UploadRecord) -> str:
    return json.dumps(asdict(upload), indent=2)


ROUTES = (
    Route("/v1/uploads", create_upload, Access.API, methods=("POST",)),
    Route("/v1/uploads/{id}/parts", add_part, Access.API_UPLOAD, MAX_FORM_BYTES, methods=("POST",)),
    Route("/v1/uploads/{id}/complete", complete_upload, Access.API, methods=("POST",)),
    Route("/v1/uploads/{id}/cancel", cancel_upload, Access.API, methods=("POST",)),
)
