"""A real server of a real run on 127.0.0.1, in a thread of this process, and clients for it."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any

from openai import OpenAI

from trainer.inference.serve.limits import Limits
from trainer.inference.serve.server import Program
from trainer.inference.serve.service import Service
from trainer.inference.serve.sources import TrainedRuns
from trainer.runs import Run

KEY = "key-of-the-tests"
READY_SECONDS = 120.0


class Serving:
    """A server that is ready."""

    def __init__(self, program: Program, said: list[str]) -> None:
        self.program, self.said = program, said
        self.name = program.server.name
        self.port: int = program.listener.getsockname()[1]
        self.client = OpenAI(base_url=f"{program.address}/v1", api_key=KEY, max_retries=0, timeout=60)

    def ask(self, content: str, model: str | None = None, **settings: Any) -> Any:
        """The official client's answer to one question under the system prompt of the training rows."""
        messages = [{"role": "system", "content": "You count."}, {"role": "user", "content": content}]
        return self.client.chat.completions.create(model=model or self.name, messages=messages, **settings)

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=30)

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, key: str | None = KEY
    ) -> tuple[HTTPResponse, bytes]:
        """A raw request; objects are sent as JSON."""
        sent = dict(headers or {})
        if key is not None:
            sent.setdefault("Authorization", f"Bearer {key}")
        if isinstance(body, dict):
            body = json.dumps(body)
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        connection = self.connect()
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        return response, response.read()

    @property
    def service(self) -> Service:
        """The first model's."""
        assert self.program.server.models is not None
        return self.program.server.models.services[0]

    @property
    def generating(self) -> list[Any]:
        """The states of the requests that the first model is working on."""
        manager = self.service.engine.manager
        assert manager is not None
        return [*manager.batch_processor.scheduler.active_requests.values(), *manager.input_queue.queue]

    @property
    def num_generating(self) -> int:
        return len(self.generating)


@contextmanager
def serving(run: Run, limits: Limits | None = None, others: Sequence[Run] = ()) -> Iterator[Serving]:
    """Serve runs; it has ended when the block is left."""
    said: list[str] = []
    program = Program(TrainedRuns([run, *others]), "127.0.0.1", 0, [], KEY, limits or Limits(), said.append)
    thread = threading.Thread(target=program.run)
    thread.start()
    try:
        server = Serving(program, said)
        wait_until(lambda: not thread.is_alive() or server.request("GET", "/health")[0].status == 200, READY_SECONDS)
        assert thread.is_alive(), program.keeper.error
        yield server
    finally:
        program.stop()
        thread.join(timeout=60)
    assert not thread.is_alive()


def wait_until(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
