"""`/v1/files`, by the methods of OpenAI's own SDK."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.api_server import ApiServer, api_server
from trainer.api.files import RESULTS, add_file
from trainer.api.folders import home_of

ROWS = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("runs")) as server:
        yield server


def test_a_file_is_what_was_sent_until_it_is_deleted(served: ApiServer) -> None:
    files = served.client().files
    made = files.create(file=("train.jsonl", ROWS), purpose="fine-tune")

    assert (made.filename, made.bytes, made.purpose, made.status) == (
        "train.jsonl",
        len(ROWS),
        "fine-tune",
        "processed",
    )
    assert files.retrieve(made.id) == made
    assert files.content(made.id).read() == ROWS
    assert files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        files.retrieve(made.id)


def test_nobody_sees_the_file_of_another_key(served: ApiServer) -> None:
    made = served.client("ann").files.create(file=ROWS, purpose="fine-tune")
    others = served.client("bob").files

    for call in (others.retrieve, others.content, others.delete):
        with pytest.raises(openai.NotFoundError) as refused:
            call(made.id)
        assert refused.value.body == served_body(f"No such File object: {made.id!r}")
    assert list(others.list()) == []
    assert made in list(served.client("ann").files.list())


def served_body(message: str) -> dict[str, str]:
    return {"message": message, "type": "invalid_request_error", "param": "id", "code": "resource_not_found"}


def test_lists_are_pages_in_either_order_of_one_purpose(tmp_path: Path) -> None:
    with api_server(tmp_path) as served:
        files = served.client().files
        made = [files.create(file=(f"{number}.jsonl", ROWS), purpose="fine-tune").id for number in range(5)]
        source = tmp_path / "results.csv"
        source.write_bytes(b"step\n1\n")
        result = add_file(tmp_path, "ann", "results.csv", RESULTS, source, "file-ofajob")
        assert add_file(tmp_path, "ann", "results.csv", RESULTS, source, "file-ofajob") == result

        newest = [result.id, *reversed(made)]
        assert [file.id for file in files.list(limit=2)] == newest  # the SDK asks for the next page by itself
        assert [file.id for file in files.list(limit=3, order="asc")] == newest[::-1]
        assert [file.id for file in files.list(limit=1, purpose="fine-tune")] == newest[1:]
        page = files.list(limit=2, after=made[3], purpose="fine-tune")
        assert ([file.id for file in page.data], page.has_more) == ([made[2], made[1]], True)
        assert files.wait_for_processing(result.id).purpose == RESULTS
        assert files.content(result.id).read() == b"step\n1\n"
        for wrong in ({"after": "file-none"}, {"limit": 0}, {"limit": 10_001}, {"order": "newest"}):
            with pytest.raises(openai.BadRequestError) as refused:
                files.list(**wrong)
            assert refused.value.param == next(iter(wrong))


def test_a_file_that_has_expired_is_gone(tmp_path: Path) -> None:
    with api_server(tmp_path) as served:
        files = served.client().files
        made = files.create(file=ROWS, purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600})
        assert made.expires_at == made.created_at + 3600
        folder = home_of(tmp_path, "ann") / "files" / made.id
        record = folder / "record.json"
        record.write_text(record.read_text().replace(str(made.expires_at), str(made.created_at)))

        with pytest.raises(openai.NotFoundError):
            files.content(made.id)
        assert list(files.list()) == []
        assert not folder.exists()


@pytest.mark.parametrize(("sent", "param"), [
    ({"file": b""}, "file"),
    ({"purpose": "assistants"}, "purpose"),
    ({"purpose": RESULTS}, "purpose"),
    ({"expires_after": {"anchor": "created_at", "seconds": 10}}, "expires_after"),
    ({"expires_after": {"anchor": "last_used_at", "seconds": 3600}}, "expires_after"),
])  # fmt: skip
def test_a_file_that_cannot_be_taken_leaves_nothing(served: ApiServer, sent: dict[str, Any], param: str) -> None:
    files = served.client().files
    before = list(files.list())
    with pytest.raises(openai.BadRequestError) as refused:
        files.create(**({"file": ROWS, "purpose": "fine-tune"} | sent))
    assert refused.value.param == param
    assert list(files.list()) == before
    assert list((home_of(served.server.studio.root, "ann") / "incoming").iterdir()) == []


@pytest.mark.parametrize(("name", "shown"), [
    ("../../../etc/passwd", "passwd"),
    ("C:\\rows\\train.jsonl", "train.jsonl"),
    ("ä\N{RIGHT-TO-LEFT OVERRIDE}b.jsonl", "ä\N{REPLACEMENT CHARACTER}b.jsonl"),
    ("x" * 300, "x" * 255),
])  # fmt: skip
def test_a_file_s_name_is_shown_and_no_path(served: ApiServer, name: str, shown: str) -> None:
    files = served.client().files
    made = files.create(file=(name, ROWS), purpose="fine-tune")
    assert made.filename == shown
    folder = home_of(served.server.studio.root, "ann") / "files" / made.id
    assert sorted(path.name for path in folder.iterdir()) == ["content.jsonl", "record.json"]
    assert files.content(made.id).read() == ROWS
