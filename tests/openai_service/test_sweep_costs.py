"""A grid of runs that bill: one cap for all of them, agreed to beforehand, and held when the grid grows."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import Done
from tests.documents import document_of
from tests.openai_service.world import RUN, World, one_message, world
from trainer.runs.queue import STARTED_BY_QUEUE, Queue

JSON = ("--format", "json")
GRID = ("sweep", "config.yaml", "training.n_epochs=1,2", "training.batch_size=4")
NAMES = [f"{RUN}-n_epochs-{number}" for number in (1, 2)]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(Queue, "start_worker", lambda queue: False)
    with world(tmp_path, "openai") as found:
        yield found


def queued(made: World) -> list[str]:
    return [entry.run for entry in Queue(made.folder / "runs").entries()]


def is_untouched(made: World, done: Done) -> bool:
    return (done.code, queued(made), list((made.folder / "runs").glob("[!.]*")), made.inventory()) == (2, [], [], [])


def test_a_grid_that_bills_is_priced_whole_and_starts_under_one_cap(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = document_of(made.command(*GRID, "--check", *JSON))
    prices = [run["price"] for run in checked["runs"]]
    total = checked["quote"]["total"]
    assert (total, checked["cap"]) == (pytest.approx(sum(prices)), None)
    assert 0 < prices[0] < prices[1]
    assert [item["what"] for item in checked["quote"]["items"]] == NAMES
    refused = made.command(*GRID, "--yes")
    assert is_untouched(made, refused)
    assert "--cap: is not given, and these runs bill" in one_message(refused)
    between = f"{(prices[1] + total) / 2:.6f}"  # enough for each run, and not for both
    for words, name in ((("--cap", between), "--cap"), ((f"backend.spend_cap={between}",), "backend.spend_cap")):
        refused = made.command(*GRID, *words, "--yes")
        assert is_untouched(made, refused)
        assert one_message(refused).startswith(f"error: {name}: is ")
    done = document_of(made.command(*GRID, "--cap", str(total + 0.01), *JSON))
    assert (done["num_enqueued"], queued(made), made.inventory()) == (2, NAMES, [])
    agreed = [entry.quote.total for entry in Queue(made.folder / "runs").entries() if entry.quote is not None]
    assert agreed == pytest.approx(prices)
    more = (*GRID[:2], "training.n_epochs=1,2,3", GRID[3])
    assert "error: --cap: is" in one_message(made.command(*more, "--cap", str(total + prices[0]), "--yes"))
    assert queued(made) == NAMES, "the runs that wait count"
    monkeypatch.setenv(STARTED_BY_QUEUE, "1")
    for name in NAMES:
        assert made.command("train", "--resume", name).code == 0
    again = document_of(made.command(*GRID, "backend.spend_cap=1000", *JSON, "--check"))
    assert ([run["state"] for run in again["runs"]], again["quote"]["total"]) == (
        ["succeeded"] * 2, pytest.approx(total),
    )  # fmt: skip


def test_a_terminal_asks_once_for_all_runs(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)

    def answer(question: str, err: bool) -> bool:
        asked.append(question)
        return len(asked) > 1

    monkeypatch.setattr("typer.confirm", answer)
    assert is_untouched(made, made.command(*GRID, "--cap", "1000"))
    assert made.command(*GRID, "--cap", "1000").code == 0
    assert (asked, queued(made)) == (["start 2 runs on openai?"] * 2, NAMES)
