"""A laptop beside a real server of the fine-tuning API, with a wire between them that can be cut.

The server answers in a thread; validation and training happen when a test says so. Commands run in this process, in a
time of their own: what they wait is counted and not waited.
"""

import http.client
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
import yaml
from rich.console import Console

from tests.api_server import TINY, ApiServer, api_server, key_of
from tests.commands import Done, performed
from tests.conftest import QUESTIONS
from tests.loopback import Loopback, Request, Response
from trainer.api.admission import OFFICE, admit
from trainer.api.job import Job, jobs_of, shared_file
from trainer.api.settings import BaseOffer
from trainer.backends.choose import choose
from trainer.backends.contract import Screen
from trainer.errors import ExitCode
from trainer.runs import Run, flock
from trainer.runs.queue import Queue

RUN = "far"
OFFERS = {
    "llama": BaseOffer(base=TINY, overrides=("lora.r=4", "training.learning_rate=0.005", "evaluation.enabled=false"))
}
TIMEOUT_SECONDS, HANG_SECONDS = 2.0, 2.4


@dataclass
class Remote:
    """The server, the wire to it, and the folder of somebody who trains there."""

    server: ApiServer
    wire: Loopback
    folder: Path
    waited: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def run(self) -> Run:
        return Run(self.folder / "runs" / RUN)

    @property
    def root(self) -> Path:
        return self.server.server.studio.root

    def jobs(self) -> list[Job]:
        return list(jobs_of(self.root, "ann"))

    def doubles(self) -> Counter[str]:
        """Names of files, and jobs by the run's mark, of which the server has more than one."""
        files = Counter(file.filename for file in self.server.client().files.list(purpose="fine-tune"))
        marks = Counter(str((job.metadata or {}).get("trainer_token")) for job in self.jobs())
        return Counter({name: count for name, count in (files + marks).items() if count > 1})

    def finish(self, job: Job) -> None:
        """What the server's other processes do for a job."""
        admit(self.root, job)
        backend = choose("local", Screen(Console(file=io.StringIO())))
        backend.resume(job.run, lambda message: None)
        assert backend.follow(job.run, lambda message: None).exit_code is ExitCode.DONE

    def command(self, *words: str) -> Done:
        return performed(words, lambda: self.waited, self._surroundings())

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """Run a command as a process of its own, in real time."""
        return subprocess.Popen(
            [sys.executable, "-m", "trainer", *words], cwd=self.folder, env=os.environ | self.environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        sleep, monotonic, here = time.sleep, time.monotonic, threading.current_thread()

        def waits(seconds: float) -> None:
            if threading.current_thread() is here:
                self.waited += seconds
            else:
                sleep(seconds)

        def now() -> float:
            return monotonic() + (self.waited if threading.current_thread() is here else 0.0)

        with ExitStack() as stack:
            for entered in (chdir(self.folder), mock.patch.dict(os.environ, self.environment)):
                stack.enter_context(entered)
            for name, replaced in (("sleep", waits), ("monotonic", now)):
                stack.enter_context(mock.patch(f"time.{name}", replaced))
            yield


def forward(address: str, request: Request) -> Response:
    """The server's own answer to a request."""
    connection = http.client.HTTPConnection(address, timeout=60)
    query = "&".join(f"{key}={value}" for key, value in request.query.items())
    left_out = ("host", "transfer-encoding", "content-length", "accept-encoding", "connection")
    headers = {key: value for key, value in request.headers.items() if key not in left_out}
    connection.request(request.method, request.path + (f"?{query}" if query else ""), request.body, headers)
    answer = connection.getresponse()
    content, kind = answer.read(), answer.headers.get("Content-Type", "")
    connection.close()
    return Response(answer.status, json.loads(content) if "json" in kind else content, {"Content-Type": kind})


@contextmanager
def remote(folder: Path) -> Iterator[Remote]:
    """Server, wire and laptop; a config with rows is there."""
    root, laptop = folder / "server", folder / "laptop"
    root.mkdir()
    laptop.mkdir()
    office = flock.take(shared_file(root, OFFICE))
    assert office is not None
    try:
        with pytest.MonkeyPatch.context() as patch, api_server(root, bases=OFFERS) as server:
            patch.setattr(Queue, "start_worker", lambda queue: False)
            address = server.server.address.removeprefix("http://")
            with Loopback(lambda request: forward(address, request)) as wire:
                wire.hang_seconds = HANG_SECONDS
                made = Remote(server, wire, laptop)
                made.environment = {
                    "TRAINER_API_KEY": key_of("ann"), "TRAINER_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS),
                    "HOME": str(folder),
                }  # fmt: skip
                write_config(made)
                yield made
    finally:
        os.close(office)


def write_config(made: Remote) -> None:
    for name, rows in (("train", QUESTIONS[:20]), ("validation", QUESTIONS[20:])):
        lines = [
            {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}
            for ask, answer in rows
        ]
        (made.folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {
        "model": {"base": "llama"},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl"},
        "training": {"n_epochs": 2, "batch_size": 5},
        "evaluation": {"enabled": False},
        "backend": {"kind": "openai"},
        "openai": {"service": "trainer", "base_url": f"{made.wire.url}/v1"},
        "run": {"name": RUN},
    }
    (made.folder / "config.yaml").write_text(yaml.safe_dump(settings))


def begin_again(made: Remote, kept: Path | None = None) -> None:
    """The laptop's folder of runs as it was kept, or none; the wire whole."""
    made.wire.faults, made.wire.kills = [], []
    shutil.rmtree(made.folder / "runs", ignore_errors=True)
    if kept is not None:
        shutil.copytree(kept, made.folder / "runs")
