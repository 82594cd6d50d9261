"""What the tests install once is made by one of the processes that come for it at the same time."""

import multiprocessing
import time
from pathlib import Path

from tests.environments import make_once


def come(folder: Path, built: Path, arrived: "multiprocessing.Barrier") -> None:
    def build(made: Path) -> None:
        made.mkdir()
        (made / "first").touch()
        time.sleep(0.2)
        (made / "last").touch()
        with built.open("a") as log:
            log.write("once\n")

    arrived.wait()
    assert {path.name for path in make_once(folder, build).iterdir()} == {"first", "last", "ready"}


def test_processes_that_come_at_once_find_one_whole_folder(tmp_path: Path) -> None:
    folder, built = tmp_path / "cache" / "tool-1", tmp_path / "built"
    folder.mkdir(parents=True)
    (folder / "left-half-made").touch()
    fork = multiprocessing.get_context("fork")
    arrived = fork.Barrier(4)
    comers = [fork.Process(target=come, args=(folder, built, arrived)) for _ in range(4)]
    for one in comers:
        one.start()
    for one in comers:
        one.join()
    assert [one.exitcode for one in comers] == [0] * 4
    assert built.read_text() == "once\n"
