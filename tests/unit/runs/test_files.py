"""A long log is read from its end, and what is new in it once; folders for new files stay or go with them."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.runs.files import NewLines, folders_above, from_the_end, last_records
from trainer.runs.growth import BLOCK_BYTES
from trainer.runs.results import COLUMNS, last_values


@pytest.mark.parametrize(
    "text",
    ["", "a", "a\n", "a\nb\n", "a\ntorn", "\n\na\n", "x" * (BLOCK_BYTES - 1) + "\ny\n", "x" * BLOCK_BYTES + "\n",
     "".join(f"{number}\n" for number in range(30_000)), "é\n" * BLOCK_BYTES + "torn"],
)  # fmt: skip
def test_lines_from_the_end_are_the_lines(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log"
    path.write_text(text, encoding="utf-8")
    assert list(from_the_end(path))[::-1] == text.split("\n")[:-1]
    assert [line.rstrip("\n") for line in NewLines(path).read()] == text.split("\n")[:-1]


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = NewLines(path)
    assert list(lines.read()) == []
    path.write_text("one\ntwo\nthr")
    assert list(lines.read()) == ["one\n", "two\n"]
    with path.open("a") as file:
        file.write("ee\n")
    assert list(lines.read()) == ["three\n"]
    path.write_text("anew\n")
    assert list(lines.read()) == ["anew\n"]


def test_damaged_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text('{"a": 1}\nnot json\n[1]\n{"a": 2}\n{"a": 3')
    assert last_records(path, 5) == [{"a": 1}, {"a": 2}]
    assert last_records(path, 1) == [{"a": 2}]
    assert last_records(path, 0) == []


def cpu_seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def test_the_end_of_a_file_costs_the_same_however_long_it_is(tmp_path: Path) -> None:
    costs = []
    for count in (1_000, 100_000):
        log, results = tmp_path / f"{count}.jsonl", tmp_path / f"{count}.csv"
        log.write_text("".join(json.dumps({"message": f"number {n}"}) + "\n" for n in range(count)))
        results.write_text(",".join(COLUMNS) + "\n" + "".join(f"{n},1.5,0.5,2,0.5,,\n" for n in range(count)))
        assert last_records(log, 1) == [{"message": f"number {count - 1}"}]
        assert last_values(results, ("step", "valid_loss")) == {"step": count - 1, "valid_loss": 2}

        def ends(log: Path = log, results: Path = results) -> None:
            for _ in range(50):
                last_records(log, 5)
                last_values(results, ("step", "train_loss", "valid_loss"))

        costs.append(cpu_seconds(ends))
    assert costs[1] < 5 * costs[0], costs


# Folders for new files: made where they are missing, gone again only where the files could not be made


def test_folders_above_new_files_stay_once_the_files_are_made(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "b" / "one", tmp_path / "a" / "c" / "two"
    with folders_above(first, second):
        first.touch()  # and of the second nothing is left, as another process has taken it
    assert first.is_file()
    assert second.parent.is_dir()


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_folders_above_new_files_are_removed_where_making_them_fails(
    tmp_path: Path, error: type[BaseException]
) -> None:
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / "a" / "b" / "one"
    with pytest.raises(error), folders_above(path):
        raise error
    assert list((tmp_path / "there").iterdir()) == []


def test_what_others_put_into_a_folder_keeps_it(tmp_path: Path) -> None:
    theirs, path = tmp_path / "a" / "theirs", tmp_path / "a" / "b" / "one"
    with pytest.raises(FileNotFoundError), folders_above(path):
        _write_and_fail(theirs)
    assert list((tmp_path / "a").iterdir()) == [theirs]


def _write_and_fail(file: Path) -> None:
    file.touch()
    raise FileNotFoundError
