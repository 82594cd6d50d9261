"""The entrance of programs: keys, hosts, addresses and bodies. Whatever is sent, the answer is one of OpenAI's form."""

import json
import random
import string
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from starlette.requests import Request

from tests.api_server import CALLERS, ApiServer, api_server, key_of, settings_of
from tests.studio import Answer, studio
from trainer.api import app as api_app
from trainer.api.app import ApiDoor
from trainer.api.keys import Caller, Key, digest_of, find_caller

EVERYWHERE = [(method, route.path) for route in api_app.ROUTES for method in route.methods]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("runs")) as server:
        yield server


def error_of(answer: Answer) -> dict[str, str | None]:
    """The error of an answer, whose form is OpenAI's."""
    assert answer.headers["content-type"] == "application/json", answer.text
    assert answer.headers["x-request-id"].startswith("req_")
    error: dict[str, str | None] = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


WRONG = {
    "none": {},
    "another": {"Authorization": "Bearer key-of-eve"},
    "empty": {"Authorization": "Bearer "},
    "another scheme": {"Authorization": f"Basic {key_of('ann')}"},
    "no scheme": {"Authorization": key_of("ann")},
    "the digest": {"Authorization": f"Bearer {digest_of(key_of('ann'))}"},
    "two callers": {"Authorization": f"Bearer {key_of('ann')}", "api-key": key_of("bob")},
    "not ASCII": {"api-key": "key-of-änn"},
    "a cookie": {"Cookie": f"api-key={key_of('ann')}"},
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
def test_every_route_needs_the_key(served: ApiServer, headers: dict[str, str]) -> None:
    for method, path in [*EVERYWHERE, ("GET", "/v1/nothing"), ("GET", "/"), ("PUT", "/v1/files")]:
        answer = served.http.send(method, path, headers)
        assert answer.status == 401, (method, path)
        assert error_of(answer)["code"] == "invalid_api_key"


@pytest.mark.parametrize("headers", [
    {"Authorization": f"Bearer {key_of('ann')}"},
    {"Authorization": f"bearer   {key_of('ann')} "},
    {"api-key": key_of("ann")},
    {"api-key": key_of("ann"), "Authorization": f"Bearer {key_of('ann')}"},
])  # fmt: skip
@pytest.mark.parametrize("below", ["/v1", "/openai/v1"])
def test_a_key_opens_both_spellings_in_either_header(served: ApiServer, headers: dict[str, str], below: str) -> None:
    assert served.http.send("GET", f"{below}/models", headers).status == 200


def test_azure_s_client_works_unmodified(served: ApiServer) -> None:
    address = f"{served.server.address}/openai/v1/"
    client = openai.AzureOpenAI(api_key=key_of("bob"), base_url=address, api_version="preview", max_retries=0)
    made = client.files.create(file=b"{}\n", purpose="fine-tune")
    assert [file.id for file in served.client("bob").files.list()] == [made.id]
    assert client.files.delete(made.id).deleted


def test_every_key_is_compared_with_the_one_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("trainer.api.keys.hmac.compare_digest", lambda given, known: seen.append(known) or True)
    keys = [Key(Caller(name), digest_of(name)) for name in ("a", "b", "c")]
    find_caller(keys, Request({"type": "http", "headers": [(b"api-key", b"a")]}))
    assert seen == [key.digest for key in keys]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:1", "127.0.0.1", ""])
def test_a_request_to_another_name_is_refused(served: ApiServer, host: str) -> None:
    answer = served.send("GET", "/v1/models", Host=host)
    assert (answer.status, error_of(answer)["code"]) == (421, "unknown_host")


def test_what_is_not_there_is_said_in_json(served: ApiServer) -> None:
    for path in ("/v1", "/v1/", "/v1/nothing", "/openai/v1/files/", "/", "/static/app.js", "/runs", "/v2/files"):
        answer = served.send("GET", path)
        assert answer.status == 404, path
        assert str(error_of(answer)["message"]).startswith("Invalid URL (GET /")


def test_a_route_answers_its_own_methods_alone_and_gives_no_other_site_leave(served: ApiServer) -> None:
    for path in {path for _, path in EVERYWHERE}:
        own = {method for method, other in EVERYWHERE if other == path}
        for method in set(METHODS) - own:
            answer = served.send(method, path, Origin="http://evil.example", Access_Control_Request_Method="POST")
            assert answer.status == 405, (method, path)
            assert set(answer.headers["allow"].split(", ")) <= own
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert method == "HEAD" or error_of(answer)["code"] == "method_not_allowed"


def test_a_body_that_is_too_large_is_refused_before_it_is_read(served: ApiServer) -> None:
    answer = served.send("POST", "/v1/uploads", Content_Length=str(2**40))
    assert (answer.status, error_of(answer)["code"]) == (413, "request_too_large")


def test_a_large_body_with_a_wrong_key_is_answered_and_not_cut_off(served: ApiServer) -> None:
    client = openai.OpenAI(api_key="sk-wrong", base_url=f"{served.server.address}/v1", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        client.files.create(file=b"x" * 20_000_000, purpose="fine-tune")
    with pytest.raises(openai.PermissionDeniedError):
        served.client("small").files.create(file=b"x" * 20_000_000, purpose="fine-tune")


@pytest.mark.parametrize("body", [
    b"", b"[]", b"null", b"{", b'{"a": NaN}', b"\xff", b'{"filename": "\\ud800"}', b"[" * 100_000, b'{"bytes": 1e999}',
    b'{"filename":"a","purpose":"fine-tune","bytes":true,"mime_type":"x"}',
    b'{"filename":"a","purpose":"fine-tune","bytes":1,"mime_type":"x","more":1}',
    b'{"filename":"a","purpose":"assistants","bytes":1,"mime_type":"x"}',
    b'{"filename":"a","purpose":"fine-tune","bytes":99999999999999,"mime_type":"x"}',
])  # fmt: skip
def test_a_body_that_is_none_of_the_document_s_is_refused(served: ApiServer, body: bytes) -> None:
    answer = served.send("POST", "/v1/uploads", body, Content_Type="application/json")
    assert answer.status == 400
    error_of(answer)


def test_pages_and_api_share_a_port_and_not_their_keys(tmp_path: Path) -> None:
    door = ApiDoor(settings_of(tmp_path))
    with studio(tmp_path, door=door, api=api_app.ROUTES) as both:
        key = {"Authorization": f"Bearer {key_of('ann')}"}
        assert both.send("GET", "/v1/models", key).status == 200
        assert both.send("GET", "/openai/v1/models", key).status == 200
        assert both.get("/runs").status == 200
        assert both.send("GET", "/runs", key).status == 401
        assert both.get("/v1/models").status == 401
        assert b"<!doctype html>" in both.send("GET", "/nothing", key).body


VALID = (
    b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{}\n\r\n--B--\r\n'
)
KINDS = ("multipart/form-data; boundary=B", "multipart/form-data", "multipart/form-data; boundary=" + "x" * 300,
         "application/json", "multipart/form-data; boundary=\xff", "text/plain")  # fmt: skip
NAMES = ("file-1", "ft:builtin:tiny:ann::%00", "ftjob-%00", "ft:a:b::../..", "..", "%2e%2e", "%00", "%ff",
         "a%2F..%2F..%2Fkeys", "x" * 5000, "file-%0d%0aX:1", "%E2%80%AE", "*")  # fmt: skip


SIGNS = string.ascii_letters + string.digits + "%-+.;/?"


def mutated(chance: random.Random, body: bytes) -> bytes:
    """The body with a few bytes changed, cut, or doubled."""
    changed = bytearray(body)
    for _ in range(chance.randint(0, 4)):
        at = chance.randrange(len(changed) or 1)
        match chance.randrange(4):
            case 0:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del changed[at : at + chance.randint(1, 60)]
            case 2:
                changed[at:at] = changed[at : at + chance.randint(1, 60)]
            case _:
                changed[at:at] = chance.choice([b"\r\n--B", b"\0", b"\r\n\r\n", b'name="file"', b"--B--"])
    return bytes(changed)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_sent_no_answer_is_a_mistake_of_ours(served: ApiServer, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(100):
        method, path = chance.choice(EVERYWHERE)
        path = path.replace("{id}", chance.choice(NAMES)).replace("{model:path}", chance.choice(NAMES))
        query = "".join(chance.choices(SIGNS, k=chance.randint(0, 12)))
        headers = {"Content-Type": chance.choice(KINDS), "Range": chance.choice(["bytes=9-", "bytes=-0", "x"])}
        if chance.random() < 0.3:
            headers["Idempotency-Key"] = "".join(chance.choices(string.printable[:95], k=chance.randint(0, 300)))
        path += f"?limit={query}" if (method, path) == ("GET", "/v1/files") else ""
        answer = served.send(method, path, mutated(chance, VALID), chance.choice(CALLERS).name,
                             **headers)  # fmt: skip
        assert answer.status < 500, (method, path, query, headers)
        if answer.status >= 400:
            error_of(answer)
