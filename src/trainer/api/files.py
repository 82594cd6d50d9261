"""`/v1/files`: training data that clients send, and results that jobs leave, each seen by its owner alone."""

import functools
import json
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from trainer.api.errors import ApiError, invalid, not_found
from trainer.api.folders import CONTENT, RECORD, Incoming, home_of, remove_folder
from trainer.api.forms import StreamedForm, pour
from trainer.api.idempotency import one_id
from trainer.api.keys import api_settings_of, caller_of
from trainer.api.pages import choice_of, limit_of, page_of, with_ends
from trainer.runs.files import read_record
from trainer.web.routes import Access, Route
from trainer.web.words import whole_number

FINE_TUNE, RESULTS = "fine-tune", "fine-tune-results"
MAX_FILE_BYTES = 8 * 2**30
MAX_FORM_BYTES = 64 * 2**10  # of what stands around the file
PIECE_BYTES = 2**20
MAX_LISTED = 10_000
LIFE_SECONDS = (3_600, 2_592_000)
ID = re.compile(r"file-[A-Za-z0-9]{1,64}")
SUFFIX = re.compile(r"\.[a-z0-9]{1,16}")
LIFE_FIELDS = ("expires_after[anchor]", "expires_after[seconds]")


@dataclass(frozen=True)
class FileRecord:
    """A file as it was taken; it never changes."""

    id: str
    owner: str
    filename: str
    purpose: str
    num_bytes: int
    created_at: int
    sha256: str
    expires_at: int | None = None
    made_at: int = 0  # nanoseconds: the order of files of one second

    def path(self, root: Path) -> Path:
        """Its content, with the ending of its name: rows of training are always JSON Lines."""
        return _folder(root, self.owner, self.id) / self.content

    @property
    def content(self) -> str:
        """The content's name in the file's folder."""
        ending = Path(self.filename).suffix.lower()
        ending = ".jsonl" if self.purpose == FINE_TUNE else ending if SUFFIX.fullmatch(ending) else ""
        return f"{CONTENT}{ending}"

    @property
    def shown(self) -> dict[str, Any]:
        """The file in OpenAI's form."""
        shown = {
            "id": self.id, "object": "file", "bytes": self.num_bytes, "created_at": self.created_at,
            "filename": self.filename, "purpose": self.purpose, "status": "processed",
        }  # fmt: skip
        return shown if self.expires_at is None else shown | {"expires_at": self.expires_at}

    @property
    def has_expired(self) -> bool:
        return self.expires_at is not None and time.time() >= self.expires_at


def new_id() -> str:
    """An id that nobody can guess."""
    return f"file-{secrets.token_hex(12)}"


def find_file(root: Path, owner: str, id: str) -> FileRecord:  # noqa: A002  # the name in the document
    """A file of this owner. Raises: ApiError, where there is none or it is another's."""
    if ID.fullmatch(id) and (record := _read(_folder(root, owner, id))) and not record.has_expired:
        return record
    raise not_found("File object", id)


def list_files(root: Path, owner: str) -> list[FileRecord]:
    """An owner's files, the newest first; those that have expired are removed."""
    try:
        folders = [folder for folder in (home_of(root, owner) / "files").iterdir() if ID.fullmatch(folder.name)]
    except FileNotFoundError:
        return []
    records = [record for folder in folders if (record := _read(folder))]
    for record in records:
        if record.has_expired:
            delete_file(root, owner, record.id)
    current = [record for record in records if not record.has_expired]
    return sorted(current, key=lambda record: (record.created_at, record.made_at, record.id), reverse=True)


def add_file(
    root: Path,
    owner: str,
    filename: str,
    purpose: str,
    source: Path,
    id: str | None = None,  # noqa: A002  # as above
) -> FileRecord:
    """A copy of a file of ours, such as a job's result. With an id that is there already, that file: nothing is twice.

    Raises: OSError.
    """
    if id and (there := _read(_folder(root, owner, id))):
        return there
    incoming = Incoming(home_of(root, owner))
    try:
        for piece in _pieces(source.open("rb")):
            incoming.write(piece)
        return keep(root, owner, incoming, filename, purpose, id or new_id())
    finally:
        incoming.close()


def delete_file(root: Path, owner: str, id: str) -> None:  # noqa: A002  # as above
    """Remove a file of this owner. Raises: ApiError, where there is none."""
    if not ID.fullmatch(id) or not remove_folder(home_of(root, owner), _folder(root, owner, id)):
        raise not_found("File object", id)


def keep(
    root: Path,
    owner: str,
    incoming: Incoming,
    filename: str,
    purpose: str,
    id: str,  # noqa: A002  # as above
    life_seconds: int | None = None,
) -> FileRecord:
    """Make a file of what has come; from here on it survives a kill. Raises: OSError."""
    now = time.time_ns()
    seconds = now // 10**9
    expires_at = None if life_seconds is None else seconds + life_seconds
    digest = incoming.digest.hexdigest()
    record = FileRecord(id, owner, filename, purpose, incoming.num_bytes, seconds, digest, expires_at, now)
    incoming.become(_folder(root, owner, id), record.content, json.dumps(asdict(record), indent=2))
    return record


async def create_file(request: Request) -> Response:
    """Stream a file to disk; it is there, or nothing is."""
    root, caller = api_settings_of(request).root, caller_of(request)
    incoming = await anyio.to_thread.run_sync(Incoming, home_of(root, caller.name), caller.max_bytes)
    try:
        announced = whole_number(request.headers.get("content-length", "0"), MAX_FILE_BYTES) or 0
        await anyio.to_thread.run_sync(incoming.reserve, max(announced - MAX_FORM_BYTES, 0))
        form = StreamedForm(request.headers.get("content-type", ""), "file", ("purpose", *LIFE_FIELDS), incoming.write)
        await pour(request.stream(), form)
        record = await anyio.to_thread.run_sync(_kept, request, incoming, form)
    finally:
        await anyio.to_thread.run_sync(incoming.close)
    return JSONResponse(record.shown)


def _kept(request: Request, incoming: Incoming, form: StreamedForm) -> FileRecord:
    check_purpose(form.fields.get("purpose"))
    life = _life_of(form.fields)
    if not incoming.num_bytes:
        raise invalid("file", "is empty, expected rows of JSON Lines")
    root, owner = api_settings_of(request).root, caller_of(request).name
    with one_id(request, f"file {form.filename} {life} {incoming.digest.hexdigest()}", new_id) as id:  # noqa: A001
        there = _read(_folder(root, owner, id))
        return there or keep(root, owner, incoming, form.filename, FINE_TUNE, id, life)


def check_purpose(purpose: str | None) -> None:
    """Raises: ApiError, where clients may not send files of that purpose."""
    if purpose is None:
        raise ApiError(400, "purpose: is missing, expected fine-tune", "missing_required_parameter", "purpose")
    if purpose != FINE_TUNE:
        raise invalid("purpose", f"is {purpose[:40]!r}, expected fine-tune, which is all that this server does")


def check_life(anchor: str | None, seconds: int | None) -> int:
    """Seconds from a file's making to its end. Raises: ApiError."""
    fewest, most = LIFE_SECONDS
    if anchor != "created_at" or seconds is None or not fewest <= seconds <= most:
        words = f"expected anchor created_at and seconds from {fewest:,} to {most:,}"
        raise invalid("expires_after", f"is anchor {anchor!r} and seconds {seconds!r}, {words}")
    return seconds


def _life_of(fields: dict[str, str]) -> int | None:
    given = [fields.get(name) for name in LIFE_FIELDS]
    if given == [None, None]:
        return None
    return check_life(given[0], whole_number(given[1] or "", 10**9))


def list_route(request: Request) -> Response:
    """A page of the caller's files."""
    files: Sequence[FileRecord] = list_files(api_settings_of(request).root, caller_of(request).name)
    query = request.query_params
    if (purpose := query.get("purpose")) is not None:
        files = [file for file in files if file.purpose == purpose]
    if choice_of(query, "order", "desc", ("asc", "desc")) == "asc":
        files = files[::-1]
    page = page_of(files, query.get("after"), limit_of(query, MAX_LISTED, MAX_LISTED), lambda file: file.shown)
    return JSONResponse(with_ends(page, empty=""))


def retrieve_file(request: Request) -> Response:
    """A file's record."""
    return JSONResponse(_asked(request).shown)


def file_content(request: Request) -> Response:
    """A file's bytes, as an attachment. It is open before the answer begins, and may be deleted from then on."""
    file = _asked(request)
    try:
        content = file.path(api_settings_of(request).root).open("rb")
    except FileNotFoundError:
        raise not_found("File object", file.id) from None
    headers = {
        "content-length": str(file.num_bytes),
        "content-disposition": f"attachment; filename*=utf-8''{quote(file.filename)}",
    }
    return StreamingResponse(_pieces(content), headers=headers, media_type="application/octet-stream")


def _pieces(content: BinaryIO) -> Iterator[bytes]:
    with content:
        yield from iter(functools.partial(content.read, PIECE_BYTES), b"")


def delete_route(request: Request) -> Response:
    """Remove a file; a job that reads it has its own copy or link."""
    file = _asked(request)
    delete_file(api_settings_of(request).root, file.owner, file.id)
    return JSONResponse({"id": file.id, "object": "file", "deleted": True})


def _asked(request: Request) -> FileRecord:
    return find_file(api_settings_of(request).root, caller_of(request).name, request.path_params["id"])


def _folder(root: Path, owner: str, id: str) -> Path:  # noqa: A002  # as above
    return home_of(root, owner) / "files" / id


def _read(folder: Path) -> FileRecord | None:
    found = read_record(folder / RECORD)
    try:
        return FileRecord(**found)
    except TypeError:  # none, or one of a later version
        return None


ROUTES = (
    Route("/v1/files", list_route, Access.API, methods=("GET",)),
    Route("/v1/files", create_file, Access.API_UPLOAD, MAX_FILE_BYTES + MAX_FORM_BYTES, methods=("POST",)),
    Route("/v1/files/{id}", retrieve_file, Access.API, methods=("GET",)),
    Route("/v1/files/{id}", delete_route, Access.API, methods=("DELETE",)),
    Route("/v1/files/{id}/content", file_content, Access.API, methods=("GET",)),
)
