"""Several processes make the same of the rows as one does, whatever happens to them, and none outlives its run."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.config import RunConfig
from trainer.data.conversations import Conversation
from trainer.data.read.sources import check_data
from trainer.data.render.rendering import Renderer
from trainer.errors import DataError
from trainer.model.base import find_base, load_tokenizer
from trainer.training import dataset, render
from trainer.training.dataset import render_data
from trainer.training.render import RenderedRows, Rendering

pytestmark = pytest.mark.apart

LONG = {"messages": [{"role": role, "content": "word " * 60} for role in ("user", "assistant")] * 2}
SPELLED = ("Say <|im_end|>", "No.")
ROWS = [LONG if n % 7 == 3 else SPELLED if n % 11 == 5 else (f"What is {n}?", f"It is {n}.") for n in range(40)]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "PART_ROWS", 3)
    monkeypatch.setattr(render, "ROWS_A_WORKER", 10)


@pytest.fixture
def config(settings: Callable[..., RunConfig], write_rows: Callable[..., Path]) -> RunConfig:
    return settings(data__train=str(write_rows(ROWS, "rows.jsonl")), data__validation=None)


@pytest.fixture
def conversations(config: RunConfig) -> list[Conversation]:
    return check_data(config.data, "sft").report.conversations


@pytest.fixture
def rendering(config: RunConfig) -> Rendering:
    return Rendering(Renderer(load_tokenizer(find_base(config.model), config.model)), 200, "truncate")


def contents(rendered: RenderedRows) -> tuple[Any, ...]:
    tokens = rendered.tokens
    examples = [tokens.examples(row) for row in range(len(tokens.firsts) - 1)]
    return examples, rendered.problems, rendered.touched


def test_several_processes_make_the_same_as_one(conversations: list[Conversation], rendering: Rendering) -> None:
    alone = contents(rendering(conversations))
    assert len(alone[0]) == len(ROWS)
    assert (len(alone[1]), len(alone[2])) == (3, 6)
    for workers in (0, 2):
        assert contents(render.render(conversations, rendering, workers)) == alone


class Answering:
    """The connection to a worker that tells when it has answered."""

    def __init__(self, connection: Any, answered: threading.Event) -> None:
        self.connection, self.answered = connection, answered
        self.send, self.close = connection.send, connection.close

    def recv(self) -> Any:
        answer = self.connection.recv()
        self.answered.set()
        return answer


def test_workers_take_their_share(
    conversations: list[Conversation], rendering: Rendering, monkeypatch: pytest.MonkeyPatch
) -> None:
    own: list[int] = []
    answered = threading.Event()

    def start() -> Any:
        process, connection = original_start()
        return process, Answering(connection, answered)

    def after_a_worker(self: Rendering, part: list[Conversation]) -> RenderedRows:
        own.append(len(part))
        assert answered.wait(60)
        return original(self, part)

    original, original_start = Rendering.__call__, render._start
    monkeypatch.setattr(render, "_start", start)
    monkeypatch.setattr(Rendering, "__call__", after_a_worker)
    made = render.render(conversations, rendering, 2)
    assert sum(own) < len(conversations)
    assert contents(made) == contents(original(rendering, conversations))


def test_all_mistakes_are_told_at_once_in_the_order_of_the_rows(
    config: RunConfig, rendering: Rendering, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, ...]] = []
    for workers in (0, 2):
        monkeypatch.setattr(dataset, "num_workers", lambda rows, shared_by, workers=workers: workers)
        with pytest.raises(DataError) as error:
            render_data(check_data(config.data, "sft"), config.data, rendering.renderer, 200)
        told.append(tuple(error.value.problems))
    assert told[0] == told[1]
    advice, *problems = told[0]
    assert "cannot take 3 rows" in advice
    assert [problem.split(": ")[1] for problem in problems[:3] + problems[4:]] == ["TEMPLATE"] * 3 + ["LENGTH"] * 6
    assert problems[3].startswith("data.max_length: 6 rows exceed 200 tokens")


class Dying:
    """The connection to a worker that is killed when it has been sent so much."""

    def __init__(self, process: "subprocess.Popen[bytes]", connection: Any, after: int) -> None:
        self.process, self.connection, self.left = process, connection, after
        self.recv, self.close = connection.recv, connection.close

    def send(self, value: object) -> None:
        self.connection.send(value)
        self.left -= 1
        if self.left == 0:
            self.process.kill()


@pytest.mark.parametrize("after", [1, 2, 3])
def test_what_a_worker_leaves_that_dies_is_rendered_here(
    conversations: list[Conversation], rendering: Rendering, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> Any:
        process, connection = original()
        started.append(process)
        return process, Dying(process, connection, after)

    def patiently(self: Rendering, part: list[Conversation]) -> RenderedRows:
        for process in started:
            process.wait(30)
        return call(self, part)

    original, call = render._start, Rendering.__call__
    monkeypatch.setattr(render, "_start", start)
    monkeypatch.setattr(Rendering, "__call__", patiently)
    assert contents(render.render(conversations, rendering, 2)) == contents(call(rendering, conversations))
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2


def test_a_machine_without_a_process_to_spare_is_done_without_them(
    conversations: list[Conversation], rendering: Rendering, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> Any:
        if started:
            raise BlockingIOError("no process to spare")
        started.append((made := original())[0])
        return made

    original = render._start
    monkeypatch.setattr(render, "_start", start)
    assert contents(render.render(conversations, rendering, 3)) == contents(rendering(conversations))
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_workers_are_gone_when_rendering_is_interrupted(
    conversations: list[Conversation], rendering: Rendering, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> Any:
        started.append((made := original())[0])
        return made

    def interrupted(self: Rendering, part: list[Conversation]) -> RenderedRows:
        raise KeyboardInterrupt

    original = render._start
    monkeypatch.setattr(render, "_start", start)
    monkeypatch.setattr(Rendering, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        render.render(conversations, rendering, 2)
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2


PARENT = """
import time
from trainer.training import render
process, connection = render._start()
print(process.pid, flush=True)
time.sleep(60)
"""


def test_a_worker_ends_with_the_process_that_it_helps() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert is_alive(worker)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(worker)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("rows", "cores", "shared_by", "workers"),
    [(9, 8, 1, 0), (10, 8, 1, 1), (75, 8, 1, 7), (75, 8, 2, 3), (75, 8, 8, 0), (75, 1, 1, 0), (75, 1, 2, 0)],
)
def test_as_many_workers_as_there_is_work_and_cores_for(
    monkeypatch: pytest.MonkeyPatch, rows: int, cores: int, shared_by: int, workers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert render.num_workers(rows, shared_by) == workers


def test_arrays_are_the_same_to_the_byte(conversations: list[Conversation], rendering: Rendering) -> None:
    one, several = (render.render(conversations, rendering, workers).tokens for workers in (0, 1))
    for name in ("ids", "trained", "starts", "firsts"):
        assert np.array_equal(getattr(one, name), getattr(several, name))
