"""The run's files at the service: made once, waited for, and refused here when the service refuses them."""

import hashlib
import os
import re
import time
from collections.abc import Mapping
from io import BufferedRandom
from typing import TYPE_CHECKING, Any, Literal

from trainer.backends.http import Say, found, found_or_none, patiently
from trainer.backends.idempotent import LISTED_LOOK_UPS, create_once
from trainer.backends.openai.client import BEARER, FineTuningService, Record
from trainer.backends.openai.data import imported_from, place_in_files, prepared
from trainer.backends.openai.names import file_thing
from trainer.config.schema import RunConfig
from trainer.errors import BackendError, DataError
from trainer.runs import Run
from trainer.runs.ledger import Ledger
from trainer.runs.manifest import Upload

if TYPE_CHECKING:
    import httpx2
    from openai import OpenAI

PURPOSE: Literal["fine-tune"] = "fine-tune"
PART_BYTES = 32 * 2**20  # the service takes up to 64 MB; a part that is lost is sent again
LARGE_BYTES = 100 * 2**20  # from here on in parts
SECONDS_PER_MB = 4.0  # of the time a request may take: 2 Mbit/s
FIRST_WAIT_SECONDS, MOST_WAIT_SECONDS = 1.0, 15.0
PROCESSING_SECONDS = 3600.0
FILE_READY, FILE_FAILED = frozenset({"processed", "succeeded"}), frozenset({"error", "failed", "deleted", "deleting"})
LINE = re.compile(r"\b(?:line|row|example)s?\s*:?\s*(\d+)", re.IGNORECASE)


def ensure_file(service: FineTuningService, run: Run, config: RunConfig, upload: Upload, say: Say) -> str:
    """The id of the run's file of a role, which is uploaded unless it is there.

    Raises: BackendError; DataError, when the data has changed since it was checked.
    """
    ledger, thing = Ledger(run.path), file_thing(run, upload.role, service.place)
    entry = ledger.find("file", thing.key)
    known = str(entry.facts.get("id") or "") if entry is not None else ""
    found = create_once(
        ledger,
        thing,
        look_up=lambda: _look_up(service, thing.key, known),
        create=lambda: _create(service, config, upload, thing.key, say),
        facts_of=lambda made: {"id": made["id"], "bytes": made.get("bytes")},
        say=say,
        look_ups=LISTED_LOOK_UPS,
    )
    return str(found["id"])


def wait_until_processed(service: FineTuningService, config: RunConfig, upload: Upload, file_id: str, say: Say) -> None:
    """Raises: BackendError, when the service refuses the file, with its rows where it names them."""
    until, wait, said = time.monotonic() + PROCESSING_SECONDS, FIRST_WAIT_SECONDS, False
    while True:
        file = patiently(lambda: get_file(service, file_id), f"reading the state of the {upload.role} file", say)
        state = file_state(file.get("status"))
        if state == "failed":
            raise BackendError(_refused(config, upload, file))
        if state == "ready":
            return _hold_size(upload, file)
        if time.monotonic() + wait > until:
            raise BackendError(
                f"the {upload.role} file {file_id!r} is still {file.get('status')!r} after "
                f"{PROCESSING_SECONDS / 60:.0f} minutes; wait, then resume the run"
            )
        if not said:
            say(f"waiting until the service has processed the {upload.role} file")
            said = True
        time.sleep(wait)
        wait = min(wait * 1.5, MOST_WAIT_SECONDS)


def file_state(word: object) -> Literal["waiting", "ready", "failed"]:
    """Map the service's word to ours. A service that gives no state has nothing left to do."""
    text = str(word or "processed").lower()
    if text in FILE_FAILED:
        return "failed"
    return "ready" if text in FILE_READY else "waiting"


def get_file(service: FineTuningService, file_id: str) -> Record:
    """A file as the service describes it."""
    return service.ask(lambda client: client.files.with_raw_response.retrieve(file_id).http_response, "id")


def read_content(service: FineTuningService, file_id: str, doing: str, say: Say) -> bytes | None:
    """The bytes of a file; None where it is gone, or not there yet. Raises: BackendError."""

    def read() -> bytes:
        return service.raw(lambda client: client.files.with_raw_response.content(file_id).http_response).content

    return found(read, doing, say)


def _look_up(service: FineTuningService, name: str, known: str) -> Record | None:
    """The file by its id where that is known, else by its name, which is the run's alone."""
    if known:
        return found_or_none(lambda: get_file(service, known))
    return find_file(service, name)


def find_file(service: FineTuningService, name: str) -> Record | None:
    """The file of that name, which only one run gives."""

    def page(client: "OpenAI", query: Mapping[str, Any]) -> "httpx2.Response":
        return client.files.with_raw_response.list(purpose=PURPOSE, extra_query=dict(query)).http_response

    files = service.listed(page, "reading the list of files")
    return next((file for file in files if file.get("filename") == name and file.get("status") != "deleted"), None)


def _create(service: FineTuningService, config: RunConfig, upload: Upload, name: str, say: Say) -> Record:
    if variable := imported_from(config, upload.role):
        return _import(service, os.environ[variable], name)
    with prepared(config, upload.role) as file:
        _hold_digest(upload, file)
        if upload.num_bytes > LARGE_BYTES:
            return _upload_in_parts(service, file, upload, name, say)
        seconds = service.timeout + SECONDS_PER_MB * upload.num_bytes / 2**20
        return service.ask(
            lambda client: (
                client.files.with_raw_response.create(
                    file=(name, _rewound(file), "application/jsonl"), purpose=PURPOSE, timeout=seconds
                ).http_response
            ),
            "id",
        )


def _upload_in_parts(service: FineTuningService, file: BufferedRandom, upload: Upload, name: str, say: Say) -> Record:
    """Only the last call makes a file. Parts may be sent twice; an upload that is never completed expires."""
    begun = patiently(
        lambda: service.ask(
            lambda client: (
                client.uploads.with_raw_response.create(
                    bytes=upload.num_bytes, filename=name, mime_type="application/jsonl", purpose=PURPOSE
                ).http_response
            ),
            "id",
        ),
        "beginning an upload",
        say,
    )
    parts: list[str] = []
    file.seek(0)
    while data := file.read(PART_BYTES):
        parts.append(_send_part(service, str(begun["id"]), data, say))
        say(f"{upload.role} file: {file.tell() / upload.num_bytes:.0%} uploaded")
    done = service.ask(
        lambda client: client.uploads.with_raw_response.complete(str(begun["id"]), part_ids=parts).http_response,
        "file",
    )
    made: Record = done["file"]
    return made


def _send_part(service: FineTuningService, upload_id: str, data: bytes, say: Say) -> str:
    seconds = service.timeout + SECONDS_PER_MB * len(data) / 2**20
    part = patiently(
        lambda: service.ask(
            lambda client: (
                client.uploads.parts.with_raw_response.create(
                    upload_id, data=("part", data, "application/octet-stream"), timeout=seconds
                ).http_response
            ),
            "id",
        ),
        "uploading a part",
        say,
    )
    return str(part["id"])


def _import(service: FineTuningService, url: str, name: str) -> Record:
    """Let the service fetch the file itself. The URL holds a secret: no word of the answer may show it."""
    import httpx2
    from openai import APIStatusError

    body = {"purpose": PURPOSE, "filename": name, "content_url": url}
    try:
        return service.ask(
            lambda client: client.post("/files/import", cast_to=httpx2.Response, body=body, options=BEARER), "id"
        )
    except APIStatusError as error:
        secrets = {url, url.partition("?")[2] or url}
        error.body, error.message = _without(error.body, secrets), _without(error.message, secrets)
        error.args = (error.message,)
        raise


def _without(value: Any, secrets: set[str]) -> Any:
    """The value with the secrets taken out of every text in it."""
    if isinstance(value, dict):
        return {key: _without(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_without(item, secrets) for item in value]
    if isinstance(value, str):
        for secret in sorted(secrets, key=len, reverse=True):
            value = value.replace(secret, "(the URL)")
    return value


def _rewound(file: BufferedRandom) -> BufferedRandom:
    """A call that is made again begins at the file's start."""
    file.seek(0)
    return file


def _hold_digest(upload: Upload, file: BufferedRandom) -> None:
    """Raises: DataError, when the rows are others than those that were checked and quoted."""
    if hashlib.file_digest(file, "sha256").hexdigest() != upload.sha256:
        raise DataError(
            f"{', '.join(upload.paths)}: has changed since the run was checked, expected the same rows; "
            "bring them back, or start a new run"
        )


def _hold_size(upload: Upload, file: Record) -> None:
    """An imported file is what its URL holds now. Raises: BackendError, when that is not what was checked."""
    num_bytes = file.get("bytes")
    if isinstance(num_bytes, int) and num_bytes > 0 and num_bytes != upload.num_bytes:
        raise BackendError(
            f"the {upload.role} file {file.get('id')!r} holds {num_bytes:,} bytes at the service, expected the "
            f"{upload.num_bytes:,} that were checked; delete it with trainer teardown --everything and start a new run"
        )


def _refused(config: RunConfig, upload: Upload, file: Record) -> str:
    """The service's reason, with its line numbers as places in the data files."""
    details = str(file.get("status_details") or _error_of(file) or "no reason is given")
    places = [place_in_files(upload.paths, int(number)) for number in LINE.findall(details)[:20]]
    named = f" ({', '.join(place for place in places if place)})" if any(places) else ""
    return (
        f"the {upload.role} file was refused by the service: {' '.join(details.split())}{named}; correct the rows and "
        "start a new run"
    )


def _error_of(file: Record) -> str:
    error = file.get("error")
    return str(error.get("message") or error.get("code") or "") if isinstance(error, dict) else str(error or "")
