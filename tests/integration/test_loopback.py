"""The test services themselves: each fault arrives at a real client as what it says it is."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.loopback import FAULTS, Fault, Kill, Loopback, Request, Response
from trainer.backends.http import failure_of, is_failure

EXPECTED = {  # what a client of the service knows of its call: was it executed?
    "timeout before": "unknown", "timeout after": "unknown", "reset before": "unknown", "reset after": "unknown",
    "truncated body": "unknown", "408 before": "unknown", "408 after": "unknown", "409": "unknown",
    "500 before": "unknown", "500 after": "unknown", "502": "unknown", "503 before": "unknown",
    "503 after": "unknown", "504 after": "unknown", "an HTML page with 200": "unknown", "invalid JSON": "unknown",
}  # fmt: skip


class Counting:
    """Makes a model a request, and lists none."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, request: Request) -> Response:
        self.made += 1
        return Response(200, {"object": "list", "data": []})


@pytest.fixture
def service() -> Iterator[tuple[Counting, Loopback]]:
    counting = Counting()
    with Loopback(counting) as loopback:
        loopback.hang_seconds = 0.6
        yield counting, loopback


def executed(client: OpenAI) -> str:
    """What the client knows of its call. The SDK hands on a page as if it were a model: the JSON is read by hand."""
    try:
        client.models.with_raw_response.list().http_response.json()
    except Exception as error:
        if not is_failure(error):
            raise
        return failure_of(error).execution
    return "done"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_what_it_says(fault: Fault, service: tuple[Counting, Loopback]) -> None:
    counting, loopback = service
    loopback.faults = [fault.fresh(lambda request: True)]
    client = OpenAI(api_key="none", base_url=loopback.url, max_retries=0, timeout=0.3)
    certain = "refused" if fault.name[:3].isdigit() else "done"
    assert executed(client) == EXPECTED.get(fault.name, certain)
    assert counting.made == fault.commits
    client.models.list()
    assert counting.made == fault.commits + 1, "a fault happens once"


@pytest.mark.parametrize("after", [False, True])
def test_a_client_is_killed_at_the_boundary_of_a_request(after: bool, service: tuple[Counting, Loopback]) -> None:
    counting, loopback = service
    code = (
        "import sys, time, urllib.request\n"
        "sys.stdin.readline()\n"
        "for path in 'ab': urllib.request.urlopen(sys.argv[1] + '/' + path).read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, loopback.url], stdin=subprocess.PIPE)
    loopback.kills = [Kill(lambda request: request.path == "/b", after, lambda: process.pid)]
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.close()
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert counting.made == 1 + after


def test_chunked_bodies_and_queries_arrive_whole() -> None:
    seen: list[Request] = []

    def keep(request: Request) -> Response:
        seen.append(request)
        return Response(204)

    with Loopback(keep) as loopback:
        code = (
            "import http.client, sys\n"
            "c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]))\n"
            "c.request('PUT', '/a%20b?x=1&y=', iter([b'one', b'two']), encode_chunked=True,"
            " headers={'Transfer-Encoding': 'chunked'})\n"
            "print(c.getresponse().status)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(loopback.port)], capture_output=True, text=True, env={**os.environ}
        )
    assert done.stdout.strip() == "204", done.stderr
    assert (seen[0].path, dict(seen[0].query), seen[0].body) == ("/a b", {"x": "1", "y": ""}, b"onetwo")
    assert json.dumps(dict(seen[0].headers))
