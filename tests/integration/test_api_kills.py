"""A server of the API that is killed, one that is asked by many, and its memory while a file goes through it."""

import hashlib
import json
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from tests.api_process import FORM, HEAD, KEY, ApiProcess, api_process
from tests.api_server import api_server, key_of
from tests.waiting import until
from trainer.api.folders import home_of, used_bytes
from trainer.api.settings import ONE_OWNER

NUM_CLIENTS = 50
MEGABYTE = 2**20


def content_of(number: int) -> bytes:
    return f'{{"row": {number}}}\n'.encode() * (10_000 + number)


def client_of(server: ApiProcess) -> openai.OpenAI:
    return openai.OpenAI(api_key=KEY, base_url=server.address, max_retries=0)


def send(client: openai.OpenAI, number: int) -> str:
    made = client.files.create(
        file=(f"{number}.jsonl", content_of(number)), purpose="fine-tune",
        extra_headers={"Idempotency-Key": f"upload-{number}"},
    )  # fmt: skip
    return made.id


def send_until_the_kill(client: openai.OpenAI, acknowledged: dict[int, str], first: int) -> None:
    number = first
    while True:
        try:
            acknowledged[number] = send(client, number)
        except openai.APIConnectionError:
            return
        number += 4


def test_a_killed_server_has_kept_all_that_it_acknowledged_and_nothing_half_written(tmp_path: Path) -> None:
    acknowledged, chance = dict[int, str](), random.Random(0)
    for wanted in (6, 12):
        with api_process(tmp_path) as server:
            client = client_of(server)
            threads = [threading.Thread(target=send_until_the_kill, args=(client, acknowledged, n)) for n in range(4)]
            for thread in threads:
                thread.start()
            until(lambda wanted=wanted: len(acknowledged) >= wanted, "files are taken", 60, 0.01)
            time.sleep(chance.random() / 10)
            server.kill()
            for thread in threads:
                thread.join()

    with api_process(tmp_path) as server:
        client, home = client_of(server), home_of(tmp_path, ONE_OWNER)
        assert list((home / "incoming").iterdir()) == []
        listed = {file.id: file for file in client.files.list()}
        assert set(acknowledged.values()) <= set(listed)
        for file in listed.values():
            assert client.files.content(file.id).read() == content_of(int(file.filename.removesuffix(".jsonl")))
        again = {number: send(client, number) for number in range(max(acknowledged) + 5)}
        assert {number: again[number] for number in acknowledged} == acknowledged
        files = list(client.files.list())
        assert len(files) == len(again)
        assert used_bytes(home) == sum(file.bytes for file in files)


def test_many_clients_at_once_get_each_their_own_file(tmp_path: Path) -> None:
    with api_server(tmp_path) as served:
        client = served.client()

        def round_trip(number: int) -> tuple[str, bytes]:
            made = client.files.create(file=(f"{number}.jsonl", content_of(number)), purpose="fine-tune")
            return made.id, client.files.content(made.id).read()

        with ThreadPoolExecutor(NUM_CLIENTS) as pool:
            found = list(pool.map(round_trip, range(NUM_CLIENTS)))
        assert [content for _, content in found] == [content_of(number) for number in range(NUM_CLIENTS)]
        assert {file.id for file in client.files.list()} == {name for name, _ in found}


def test_many_clients_with_one_idempotency_key_make_one_file(tmp_path: Path) -> None:
    with api_server(tmp_path) as served:
        client, header = served.client(), {"Idempotency-Key": "once"}

        def make(number: int) -> str:
            return client.files.create(file=("a.jsonl", b"{}\n"), purpose="fine-tune", extra_headers=header).id

        with ThreadPoolExecutor(16) as pool:
            assert len(set(pool.map(make, range(NUM_CLIENTS)))) == 1
        assert len(list(client.files.list())) == 1
        with pytest.raises(openai.ConflictError, match="was sent with another request"):
            client.files.create(file=("a.jsonl", b"[]\n"), purpose="fine-tune", extra_headers=header)
        other = served.client("bob").files.create(file=b"[]\n", purpose="fine-tune", extra_headers=header)
        assert other.bytes == 3


def test_quotas_hold_when_many_send_at_once(tmp_path: Path) -> None:
    with api_server(tmp_path) as served:
        client = served.client("small")

        def make(number: int) -> bool:
            try:
                client.files.create(file=b"x" * 300, purpose="fine-tune")
            except openai.PermissionDeniedError:
                return False
            return True

        with ThreadPoolExecutor(16) as pool:
            made = list(pool.map(make, range(16)))
        assert 1 <= sum(made) <= 3
        while make(0):  # until nothing more fits
            pass
        assert used_bytes(home_of(tmp_path, "small")) == 900


def test_a_file_goes_through_in_bounded_memory(tmp_path: Path) -> None:
    piece = (b"x" * 99 + b"\n") * 10_000
    with api_process(tmp_path) as server:
        assert server.upload(MEGABYTE, piece)[0] == 200
        idle = server.memory("VmRSS")
        server.forget_peak()
        status, body = server.upload(64 * MEGABYTE, piece)
        grown = server.memory("VmHWM") - idle
    assert status == 200
    record = json.loads(body)
    assert record["bytes"] == 64 * MEGABYTE
    content = (home_of(tmp_path, ONE_OWNER) / "files" / record["id"] / "content.jsonl").read_bytes()
    assert hashlib.sha256(content).digest() == hashlib.sha256((piece * 70)[: 64 * MEGABYTE]).digest()
    assert grown <= 16 * MEGABYTE
    assert idle <= 128 * MEGABYTE  # torch alone takes more


def test_the_studio_serves_the_api_too_where_it_is_asked_to(tmp_path: Path) -> None:
    with api_process(tmp_path, "ui", "--api", "--no-open", "--base", "llama=meta-llama/Llama-3.1-8B") as server:
        assert [model.id for model in client_of(server).models.list()] == ["builtin:tiny", "llama"]


def test_a_client_that_leaves_leaves_nothing(tmp_path: Path) -> None:
    with api_server(tmp_path) as served:
        home = home_of(tmp_path, "ann")
        port = served.http.port
        head = f"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {FORM}\r\n"
        head += f"Authorization: Bearer {key_of('ann')}\r\nContent-Length: 100000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head.encode() + HEAD + b"x" * 50_000)
        deadline = time.monotonic() + 10
        while not home.exists() or list((home / "incoming").iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert list(served.client().files.list()) == []
