"""`/v1/uploads`, by the methods of OpenAI's own SDK: parts in any order, one file, and nothing half-made."""

import hashlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.api_server import ApiServer, api_server
from trainer.api import uploads
from trainer.api.folders import home_of, used_bytes

ROWS = b"".join(b'{"messages": [{"role": "user", "content": "%d"}]}\n' % number for number in range(200))
HALVES = (ROWS[:5000], ROWS[5000:])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("runs")) as server:
        yield server


def begun(client: openai.OpenAI, num_bytes: int = len(ROWS)) -> str:
    made = client.uploads.create(
        bytes=num_bytes, filename="train.jsonl", mime_type="application/jsonl", purpose="fine-tune"
    )
    assert (made.status, made.bytes) == ("pending", num_bytes)
    return made.id


def parts(client: openai.OpenAI, upload: str, *pieces: bytes) -> list[str]:
    return [client.uploads.parts.create(upload, data=piece).id for piece in pieces]


def home(served: ApiServer, name: str = "ann") -> Path:
    return home_of(served.server.studio.root, name)


def test_parts_become_one_file_in_the_order_that_completes_them(served: ApiServer) -> None:
    client = served.client()
    upload = begun(client)
    second, first = parts(client, upload, HALVES[1], HALVES[0])
    digest = hashlib.md5(ROWS, usedforsecurity=False).hexdigest()

    with pytest.raises(openai.BadRequestError, match="md5"):
        client.uploads.complete(upload, part_ids=[second, first], md5=digest)
    done = client.uploads.complete(upload, part_ids=[first, second], md5=digest)

    assert done.status == "completed"
    assert done.file is not None
    assert client.files.content(done.file.id).read() == ROWS
    assert client.uploads.complete(upload, part_ids=[first, second], md5=digest) == done
    with pytest.raises(openai.BadRequestError, match="is completed, expected one that is pending"):
        parts(client, upload, b"more")
    client.files.delete(done.file.id)
    assert used_bytes(home(served)) == 0


def test_the_sdk_s_own_way_to_upload_a_file_in_chunks_works(served: ApiServer) -> None:
    done = served.client().uploads.upload_file_chunked(
        file=ROWS, filename="chunked.jsonl", bytes=len(ROWS), mime_type="application/jsonl", purpose="fine-tune",
        part_size=1000,
    )  # fmt: skip

    assert done.file is not None
    assert served.client().files.content(done.file.id).read() == ROWS


def test_a_cancelled_upload_is_no_file_and_takes_no_room(served: ApiServer) -> None:
    client = served.client()
    before = used_bytes(home(served))
    upload = begun(client)
    parts(client, upload, *HALVES)
    assert used_bytes(home(served)) == before + len(ROWS)

    assert client.uploads.cancel(upload).status == "cancelled"
    assert used_bytes(home(served)) == before
    with pytest.raises(openai.BadRequestError, match="is cancelled"):
        client.uploads.complete(upload, part_ids=["part_a"])


def test_an_upload_has_an_end(served: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    client = served.client()
    upload = begun(client)
    [part] = parts(client, upload, ROWS)
    monkeypatch.setattr(uploads, "LIFE_SECONDS", 0)

    with pytest.raises(openai.BadRequestError, match="is expired"):
        client.uploads.complete(upload, part_ids=[part])
    monkeypatch.undo()
    record = home(served) / "uploads" / upload / "record.json"
    record.write_text(record.read_text().replace('"created_at": 1', '"created_at": 0'))
    begun(client)
    with pytest.raises(openai.NotFoundError):
        client.uploads.complete(upload, part_ids=[part])


@pytest.mark.parametrize("asked", [[], ["part_0"], ["../record.json"], ["part_0/../../../../lock"]])
def test_parts_that_are_none_complete_nothing(served: ApiServer, asked: list[str]) -> None:
    client = served.client()
    upload = begun(client)
    parts(client, upload, ROWS)
    with pytest.raises(openai.BadRequestError) as refused:
        client.uploads.complete(upload, part_ids=asked)
    assert refused.value.param == "part_ids"


def test_too_few_and_too_many_bytes_are_refused(served: ApiServer) -> None:
    client = served.client()
    upload = begun(client)
    [part] = parts(client, upload, HALVES[0])
    with pytest.raises(openai.BadRequestError, match=f"hold 5,000 bytes, expected the {len(ROWS):,}"):
        client.uploads.complete(upload, part_ids=[part])
    parts(client, upload, ROWS)  # one that was sent again, since its answer was lost
    with pytest.raises(openai.BadRequestError, match="twice the upload's"):
        parts(client, upload, ROWS)


def test_a_part_that_no_upload_of_its_size_can_keep_is_refused_as_it_comes(served: ApiServer) -> None:
    client = served.client()
    with pytest.raises(openai.APIStatusError) as refused:
        parts(client, begun(client, 10), b"x" * 21)
    assert (refused.value.status_code, refused.value.code) == (413, "request_too_large")
    assert "is longer than 20 bytes" in refused.value.message


def test_an_upload_is_reserved_against_its_key_s_bytes(served: ApiServer) -> None:
    client = served.client("small")
    upload = begun(client, 600)
    for call in (lambda: begun(client, 600), lambda: client.files.create(file=b"x" * 600, purpose="fine-tune")):
        with pytest.raises(openai.PermissionDeniedError) as refused:
            call()
        assert refused.value.code == "storage_quota_exceeded"
    client.uploads.cancel(upload)
    client.files.create(file=b"x" * 600, purpose="fine-tune")


def test_completing_at_once_makes_one_file(served: ApiServer) -> None:
    client = served.client()
    upload = begun(client)
    names = parts(client, upload, *HALVES)
    found = list[str]()

    def complete() -> None:
        done = served.client().uploads.complete(upload, part_ids=names)
        assert done.file is not None
        found.append(done.file.id)

    threads = [threading.Thread(target=complete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_another_key_s_upload_is_none(served: ApiServer) -> None:
    upload = begun(served.client("ann"))
    other = served.client("bob").uploads
    for call in (
        lambda: other.parts.create(upload, data=io.BytesIO(b"x")),
        lambda: other.complete(upload, part_ids=["part_a"]),
        lambda: other.cancel(upload),
    ):
        with pytest.raises(openai.NotFoundError):
            call()
