"""Connections that say nothing, little, or too much keep nobody else from being answered."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import pytest

from tests.serving import KEY, Serving, serving, wait_until
from trainer.inference.serve.limits import Limits
from trainer.runs import Run

MAX_CONNECTIONS = 20
BEGINNING = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer " + KEY.encode()
SLOW_BODY = BEGINNING + b"\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"


@pytest.fixture(scope="module")
def patient(tuned: Run) -> Iterator[Serving]:
    """A server that waits for longer than a test takes, and whose connections are few."""
    limits = Limits(max_header_seconds=300, max_body_seconds=300, max_connections=MAX_CONNECTIONS, max_tokens=20)
    with serving(tuned, limits) as running:
        yield running


@pytest.fixture(scope="module")
def hasty(tuned: Run) -> Iterator[Serving]:
    with serving(tuned, Limits(max_header_seconds=1, max_body_seconds=1)) as running:
        yield running


@contextlib.contextmanager
def connections(server: Serving, number: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(number):
            opened.append(stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30)))
            opened[-1].sendall(sent.replace(b"%d", str(server.port).encode()))
        yield opened


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1000) == b""
    except ConnectionError:
        return True


def is_closed_while_sending(connection: socket.socket) -> bool:
    """Whether the server does so while bytes come one after the other, for a quarter of a minute."""
    with contextlib.suppress(ConnectionError):
        for _ in range(300):
            connection.sendall(b"x")
            time.sleep(0.05)
        return False
    return True


@pytest.mark.parametrize("sent", [b"", b"G", BEGINNING, SLOW_BODY], ids=["nothing", "a byte", "a header", "a body"])
def test_silent_connections_keep_nobody_out(patient: Serving, sent: bytes) -> None:
    with connections(patient, 3 * MAX_CONNECTIONS, sent):
        for _ in range(3):
            assert patient.request("GET", "/health")[0].status == 200
        assert patient.ask("What is number 5?", max_tokens=5).choices
    assert len(patient.program.uvicorn.server_state.connections) <= MAX_CONNECTIONS


def test_the_oldest_waits_make_room_and_the_others_stay(patient: Serving) -> None:
    with connections(patient, MAX_CONNECTIONS) as first, connections(patient, 5):
        wait_until(lambda: len(patient.program.uvicorn.server_state.connections) == MAX_CONNECTIONS)
        assert all(map(is_closed, first[:3]))
        first[-1].settimeout(0.3)
        with pytest.raises(TimeoutError):
            first[-1].recv(1)


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n"], ids=["nothing", "a header"])
def test_a_header_that_does_not_come_is_not_waited_for(hasty: Serving, sent: bytes) -> None:
    with connections(hasty, 1, sent) as (connection,):
        assert is_closed(connection)


def test_a_header_that_comes_byte_by_byte_is_not_waited_for(hasty: Serving) -> None:
    with connections(hasty, 1) as (connection,):
        assert is_closed_while_sending(connection)


def test_what_follows_an_answer_byte_by_byte_is_not_waited_for(hasty: Serving) -> None:
    length = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 100000\r\n\r\n"
    with connections(hasty, 1, length) as (connection,):
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        assert is_closed_while_sending(connection)


def test_a_connection_is_kept_for_the_next_request(hasty: Serving) -> None:
    connection = hasty.connect()
    for _ in range(4):
        connection.request("GET", "/health")
        assert json.loads(connection.getresponse().read())["status"] == "ready"
        time.sleep(0.5)


def test_an_answer_takes_the_time_that_it_takes(hasty: Serving) -> None:
    started = time.monotonic()
    pieces = hasty.ask("Count.", stream=True, temperature=2.0, seed=3, max_tokens=600)
    assert [piece for piece in pieces if piece.choices and piece.choices[0].finish_reason]
    assert time.monotonic() > started


def test_a_prompt_that_cannot_fit_is_refused_before_it_is_rendered(patient: Serving) -> None:
    service = patient.service
    assert service.renderer._process is not None
    pid = service.renderer._process.pid
    body = {"model": patient.name, "messages": [{"role": "user", "content": "a1! " * 225_000}]}
    response, text = patient.request("POST", "/v1/chat/completions", body)
    error = json.loads(text)["error"]
    assert (response.status, error["code"]) == (400, "context_length_exceeded")
    assert error["message"].startswith("the messages have 900,")
    assert patient.ask("What is number 5?", max_tokens=5).choices
    assert service.renderer._process.pid == pid
