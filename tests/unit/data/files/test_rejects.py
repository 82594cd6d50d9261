"""Rows with an error go to one file, all others to clean copies, and every byte is in one of them."""

import json
from pathlib import Path

import pytest

from trainer.data.files.rejects import CleanCopy, Rejects, set_aside
from trainer.data.read.checks import check_files
from trainer.errors import DataError

BROKEN = Path(__file__).parents[4] / "data" / "broken.jsonl"
GOOD = [
    json.dumps({"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}"}]}).encode()
    for n in range(6)
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows_of(path):
    lines = (line.strip(b" \t\r\n") for line in Path(path).read_bytes().split(b"\n"))
    return [line for line in lines if line]


def write(name, *rows):
    Path(name).write_bytes(b"\n".join(rows))
    return Path(name)


def test_every_row_of_the_broken_file_is_in_one_of_the_two_files():
    report = check_files([BROKEN])
    rejects = set_aside(report, [BROKEN], Path("bad.jsonl"))
    assert rejects == Rejects(Path("bad.jsonl"), 50, (CleanCopy(BROKEN, Path("broken.clean.jsonl"), 19),))
    before = rows_of(BROKEN)
    bad_lines = {error.line for error in report.errors}
    numbered = enumerate(BROKEN.read_bytes().split(b"\n"), start=1)
    assert rows_of("bad.jsonl") == [line.strip(b" \t\r") for number, line in numbered if number in bad_lines]
    assert sorted(rows_of("bad.jsonl") + rows_of("broken.clean.jsonl")) == sorted(before)


def test_the_clean_copy_can_be_trained_and_the_rejects_all_fail():
    set_aside(check_files([BROKEN]), [BROKEN], Path("bad.jsonl"))
    clean, bad = (check_files([Path(name)]) for name in ("broken.clean.jsonl", "bad.jsonl"))
    assert (clean.errors, clean.rows) == ([], 19)
    assert len({error.line for error in bad.errors}) == bad.rows == 50


def test_rows_that_leak_are_set_aside_from_the_validation_file():
    train, held_out = write("train.jsonl", *GOOD[:4]), write("held_out.jsonl", GOOD[4], GOOD[0], GOOD[5])
    report = check_files([train], [held_out])
    rejects = set_aside(report, [train, held_out], Path("leaks.jsonl"))
    assert rejects == Rejects(Path("leaks.jsonl"), 1, (CleanCopy(held_out, Path("held_out.clean.jsonl"), 2),))
    assert (rows_of("leaks.jsonl"), rows_of("held_out.clean.jsonl")) == ([GOOD[0]], [GOOD[4], GOOD[5]])


def test_several_files_have_a_clean_copy_each_and_one_file_of_rejects():
    first, second = write("a.jsonl", GOOD[0], b"{"), write("b.jsonl", b"7", GOOD[1])
    rejects = set_aside(check_files([first, second]), [first, second], Path("bad.jsonl"))
    assert rejects is not None
    assert [(copy.file.name, copy.rows) for copy in rejects.clean] == [("a.clean.jsonl", 1), ("b.clean.jsonl", 1)]
    assert rows_of("bad.jsonl") == [b"{", b"7"]


NOTHING = {
    "no error": (GOOD[0],),
    "only errors": (b"{", b"["),
    "another layout": (b"[", GOOD[0], b"]"),
    "UTF-16": (GOOD[0].decode().encode("utf-16"),),
    "no rows": (b"",),
}


@pytest.mark.parametrize("rows", NOTHING.values(), ids=NOTHING)
def test_where_there_is_nothing_to_part_nothing_is_written(rows):
    path = write("rows.jsonl", *rows)
    assert set_aside(check_files([path]), [path], Path("bad.jsonl")) is None
    assert [path.name for path in Path().iterdir()] == ["rows.jsonl"]


def test_the_copy_stands_beside_the_rejects_and_nothing_is_overwritten():
    Path("out").mkdir()
    path = write("rows.jsonl", GOOD[0], b"{")
    report = check_files([path])
    rejects = set_aside(report, [path], Path("out/bad.jsonl"))
    assert rejects is not None
    assert rejects.clean[0].file == Path("out/rows.clean.jsonl")
    with pytest.raises(DataError) as raised:
        set_aside(report, [path], Path("out/bad.jsonl"))
    assert [problem.split(":")[0] for problem in raised.value.problems] == ["out/bad.jsonl", "out/rows.clean.jsonl"]
    assert set_aside(report, [path], Path("out/bad.jsonl"), force=True) == rejects


def test_files_of_one_name_in_two_folders_have_two_clean_copies():
    for folder, first in (("a", 0), ("b", 3)):
        Path(folder).mkdir()
        write(f"{folder}/x.jsonl", *GOOD[first : first + 3], b"{}")
    sources = [Path("a/x.jsonl"), Path("b/x.jsonl")]
    rejects = set_aside(check_files(sources), sources, Path("bad.jsonl"))
    assert rejects is not None
    assert [str(copy.file) for copy in rejects.clean] == ["x.clean.jsonl", "1-x.clean.jsonl"]
    assert rows_of("x.clean.jsonl") + rows_of("1-x.clean.jsonl") == GOOD
