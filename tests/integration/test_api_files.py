"""`/v1/files`, by the methods of OpenAI's own SDK."""

from collections.abc import Iterator

import openai
import pytest

from tests.api_server import ApiServer, api_server

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
