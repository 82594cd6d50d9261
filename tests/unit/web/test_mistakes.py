"""Errors while pages are served: the page gets words, the terminal the place, and nobody a secret."""

import asyncio
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from trainer.dashboard.playground.rounds import Rounds
from trainer.errors import BackendError, ConfigError, TrainerError, TrainingError
from trainer.inference.client import Sampling
from trainer.runs import Run
from trainer.web import attendance
from trainer.web.mistakes import report, told
from trainer.web.problems import problem_of
from trainer.web.routes import Access, Route
from trainer.web.server import StudioServer

SECRET = "sk-proj-0123456789abcdefghijABCDEFGHIJ"


def broken(*_: object) -> None:
    raise ValueError(f"no row for {SECRET}\x1b[2J")


def test_a_mistake_is_words_on_the_page_and_a_place_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        broken()
    except ValueError as error:
        said = told(error, "removing x")
    assert said == (
        "removing x: unexpected ValueError: no row for …\x1b[2J; the terminal of the server shows where it comes from, "
        "which a report of it needs"
    )
    shown = capsys.readouterr().err
    assert "in broken" in shown
    assert "no row for …\\x1b[2J" in shown


@pytest.mark.parametrize("kind", [ConfigError, BackendError])
def test_an_error_of_ours_keeps_its_words_and_loses_secrets(
    kind: type[TrainerError], capsys: pytest.CaptureFixture[str]
) -> None:
    error = kind(f"the service: refused the key {SECRET}; check it")
    assert told(error, "deploying x") == "the service: refused the key …; check it"
    assert problem_of(error).sentence == "the service: refused the key …; check it"
    assert capsys.readouterr().err == ""


def test_an_error_of_ours_that_ends_an_answer_is_its_sentence_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def damaged() -> Iterator[bytes]:
        yield b"the beginning"
        raise TrainingError(f"checkpoint 4: a.safetensors is damaged, expected {SECRET}; take another one")

    def download(request: Request) -> StreamingResponse:
        return StreamingResponse(damaged())

    server = StudioServer(tmp_path, [Route("/download", download, Access.STATIC)], [], [], report=report)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        connection = HTTPConnection("127.0.0.1", server.listener.getsockname()[1], timeout=10)
        connection.request("GET", "/download")
        with pytest.raises(IncompleteRead):
            connection.getresponse().read()
    finally:
        server.stop()
        thread.join(20)
    assert capsys.readouterr().err == "checkpoint 4: a.safetensors is damaged, expected …; take another one\n"


class Breaks:
    name = "breaks"

    def stream(self, *_: object) -> Iterator[str]:
        yield "one "
        broken()


def test_an_answer_that_breaks_is_said_and_reported(capsys: pytest.CaptureFixture[str]) -> None:
    clients: Any = [("tuned", Breaks())]
    made = Rounds().begin("one", clients, [{"role": "user", "content": "?"}], Sampling(), (), is_blind=False)

    async def read() -> list[dict[str, Any]]:
        return [event async for event in made.events()]

    assert asyncio.run(read())[-1] == {"side": "a"}
    assert "answering: unexpected ValueError: no row for" in made.sides["a"].problem
    assert "in broken" in capsys.readouterr().err


def test_a_service_that_breaks_is_said_beside_the_run_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attendance, "choose", broken)
    found = attendance.Attendance()
    found._look(Run(tmp_path), is_awaited=False)
    assert found.problems[tmp_path].startswith(f"bringing {tmp_path.name} up to date: unexpected ValueError")
    assert "in broken" in capsys.readouterr().err
    found._look(Run(tmp_path / "deleted"), is_awaited=False)
    assert tmp_path / "deleted" not in found.problems
