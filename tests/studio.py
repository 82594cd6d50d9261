"""A real studio of a folder of runs on 127.0.0.1, in a thread of this process, and a client for it."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from trainer.runs.files import read_record
from trainer.runs.results import COLUMNS
from trainer.web.door import Door
from trainer.web.routes import Link, Route
from trainer.web.server import StudioServer

SIGN = "a run of azure-llm-trainer: trainer delete may remove this folder"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Answer:
    """A response that was read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Studio:
    """A server, and a signed-in browser as far as headers make one."""

    def __init__(self, server: StudioServer) -> None:
        self.server, self.wait_seconds = server, 20.0
        self.port: int = server.listener.getsockname()[1]
        self.mistakes: list[Exception] = []
        policy = server.studio.policy
        cookie = policy.sessions.open()
        self.cookie = f"{policy.cookie}={cookie}"
        self.csrf = policy.sessions.csrf(policy.sessions.read(cookie) or "")

    @property
    def signed_in(self) -> dict[str, str]:
        """What a browser sends with a request of our own page."""
        return {"Cookie": self.cookie, "Sec-Fetch-Site": "same-origin"}

    @property
    def acting(self) -> dict[str, str]:
        """What it sends with a form of our own page."""
        return {**self.signed_in, "Origin": self.server.address, "X-CSRF-Token": self.csrf}

    def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | str | None = None,
        kept: HTTPConnection | None = None,
    ) -> Answer:
        """A request with exactly these headers; an event stream is not read. A `kept` connection stays open."""
        connection = kept or HTTPConnection("127.0.0.1", self.port, timeout=self.wait_seconds)
        try:
            connection.putrequest(method, path, skip_host="Host" in (headers or {}), skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            content = body.encode() if isinstance(body, str) else body
            if content is not None and "Content-Length" not in (headers or {}):
                connection.putheader("Content-Length", str(len(content)))
            connection.endheaders(content)
            answer = connection.getresponse()
            is_stream = answer.getheader("content-type", "").startswith("text/event-stream")
            found = b"" if is_stream else answer.read()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, found)
        finally:
            if kept is None:
                connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, {**self.signed_in, **headers})

    def post(self, path: str, fields: Mapping[str, str] | Sequence[tuple[str, str]] = (), **headers: str) -> Answer:
        body = urlencode(fields if isinstance(fields, Sequence) else list(fields.items()))
        return self.send("POST", path, {**self.acting, "Content-Type": FORM, **headers}, body)


@contextmanager
def studio(
    root: Path,
    routes: Sequence[Route] | None = None,
    navigation: Sequence[Link] | None = None,
    packages: Sequence[str] | None = None,
    port: int = 0,
    door: Door | None = None,
    api: Sequence[Route] = (),
) -> Iterator[Studio]:
    """Serve the dashboard's routes, or others, and those of `api`; it ends with the block, and made no mistake."""
    from trainer import dashboard

    mistakes: list[Exception] = []
    server = StudioServer(
        root,
        (*(dashboard.ROUTES if routes is None else routes), *api),
        dashboard.NAVIGATION if navigation is None else navigation,
        [dashboard.PACKAGE] if packages is None else packages,
        port=port,
        report=mistakes.append,
        door=door,
    )
    server.studio.streams.poll_seconds = 0.05
    thread = threading.Thread(target=server.run)
    thread.start()
    found = Studio(server)
    found.mistakes = mistakes
    try:
        yield found
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()
    assert mistakes == [], mistakes


def drafted(served: Studio, answer: Answer) -> Mapping[str, str]:
    """The texts of the draft that an action leads to."""
    assert answer.status == 303, answer.text
    return read_record(served.server.studio.root / ".ui" / "drafts" / f"{answer.headers['location'][5:]}.json")["texts"]


def make_run(root: Path, name: str, state: str = "succeeded", base: str = "builtin:tiny", **status: Any) -> Path:
    """A run's folder as far as lists and pages read it."""
    folder = root / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / ".azure-llm-trainer").write_text(f"{SIGN}\n")
    (folder / "config.yaml").write_text(
        f"model:\n  base: {json.dumps(base)}\ndata:\n  train: [train.jsonl]\nrun:\n  root: {json.dumps(str(root))}\n"
    )
    made = {"created_at": "2026-11-01T10:00:00.000+00:00", "updated_at": "2026-11-01T10:05:00.000+00:00"}
    write_status(folder, state=state, backend="local", host="h", pid=1, **(made | status))
    return folder


def write_status(folder: Path, **status: Any) -> None:
    """The whole of a run's status.json."""
    from trainer.runs.files import write_json

    write_json(folder / "status.json", status)


def write_results(folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """The whole of a run's results.csv."""
    lines = [",".join(COLUMNS), *(",".join(str(row.get(name, "")) for name in COLUMNS) for row in rows)]
    (folder / "results.csv").write_text("\n".join(lines) + "\n")


class Stream:
    """An open stream, read an event at a time."""

    def __init__(self, server: Studio, path: str, headers: Mapping[str, str]) -> None:
        self.connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
        self.connection.request("GET", path, headers={**server.signed_in, **headers})
        self.answer = self.connection.getresponse()
        self.status = self.answer.status

    def next(self) -> dict[str, str]:
        """The fields of the next event; comments and events without data are passed over."""
        fields: dict[str, list[str]] = {}
        while True:
            read = self.answer.readline()
            assert read, "the stream has ended"
            if line := read.decode().rstrip("\n"):
                name, _, value = line.partition(": ")
                fields.setdefault(name, []).append(value)
            elif "data" in fields:
                return {name: "\n".join(values) for name, values in fields.items()}
            else:
                fields = {}


@contextmanager
def stream(server: Studio, path: str, **headers: str) -> Iterator[Stream]:
    """A stream that is left with the block, as a closed tab leaves it."""
    opened = Stream(server, path, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        yield opened
    finally:
        opened.answer.close()
        opened.connection.close()
