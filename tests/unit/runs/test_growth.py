"""A reader with a cursor has exactly the lines of the file, however it grew or was replaced meanwhile."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.runs.growth import BLOCK_BYTES, TAIL_BYTES, Growth, end_cursor, growth, lines_before

TEXTS = st.text(alphabet="ab\né", max_size=30)
CHANGES = st.lists(st.tuples(st.sampled_from(["grow", "replace", "cut", "remove", "look"]), TEXTS), max_size=12)


class Reader:
    """What a page in a browser holds."""

    def __init__(self, path: Path) -> None:
        self.path, self.lines, self.cursor = path, list[str](), ""

    def look(self, most_bytes: int) -> Growth:
        found = growth(self.path, self.cursor, most_bytes)
        if found.starts_over:
            self.lines = []
        self.lines += found.lines
        self.cursor = found.cursor
        return found


def change(path: Path, what: str, text: str) -> None:
    held = path.read_bytes() if path.exists() else b""
    match what:
        case "grow":
            path.write_bytes(held + text.encode())
        case "replace":
            path.write_bytes(text.encode())
        case "cut":
            path.write_bytes(held[: len(held) // 2])
        case "remove":
            path.unlink(missing_ok=True)


def whole_lines(path: Path) -> list[str]:
    text = path.read_bytes().decode(errors="replace") if path.exists() else ""
    return [f"{line}\n" for line in text.split("\n")[:-1]]


@settings(max_examples=300)
@given(changes=CHANGES, most_bytes=st.integers(1, 40))
def test_deltas_one_after_another_are_the_whole_file(tmp_path_factory, changes, most_bytes) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    reader = Reader(path)
    for what, text in changes:
        change(path, what, text)
        if what == "look":
            reader.look(most_bytes)
    while reader.look(most_bytes).lines:
        pass
    assert reader.lines == whole_lines(path)
    assert reader.cursor == end_cursor(path)


def test_what_is_known_is_not_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\n" * 1000 + "torn")
    reader = Reader(path)
    assert len(reader.look(1 << 20).lines) == 1000
    assert reader.look(1 << 20) == Growth([], reader.cursor, False)
    path.write_text("one\n" * 1000 + "torn no more\n")
    assert reader.look(1 << 20).lines == ["torn no more\n"]


def test_measurements_made_anew_by_a_resumed_run_replace_the_former_ones(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    former = "".join(f"{step},{step / 7:.10g}\n" for step in range(1, 200))
    path.write_text(former)
    reader = Reader(path)
    reader.look(1 << 20)
    kept = "".join(former.splitlines(keepends=True)[:150])
    path.write_text(kept + "".join(f"{step},{step / 9:.10g}\n" for step in range(151, 260)))  # as long, and longer
    assert reader.look(1 << 20).starts_over
    assert reader.lines == whole_lines(path)


@pytest.mark.parametrize("cursor", ["x", "-", "3", "99-00000000", "²-0", "9" * 40 + "-0", "0-ffffffff", "-1-0"])
def test_a_cursor_that_is_none_begins_anew(tmp_path: Path, cursor: str) -> None:
    path = tmp_path / "log"
    path.write_text("one\ntwo\n")
    assert growth(path, cursor).lines == ["one\n", "two\n"]
    assert growth(path, cursor).starts_over


def test_lines_before_an_offset_are_those_above_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = [f"number {number} é\n" for number in range(2 * BLOCK_BYTES // 12)]
    path.write_text("".join(lines) + "torn", encoding="utf-8")
    offsets = list(itertools.accumulate((len(line.encode()) for line in lines), initial=0))
    backwards = list(lines_before(path))
    assert backwards == [(at, line.rstrip("\n")) for at, line in zip(offsets, lines, strict=False)][::-1]
    assert list(lines_before(path, offsets[40])) == backwards[-40:]
    assert list(lines_before(path, 0)) == []
    assert list(lines_before(path, 10**9)) == backwards
    assert TAIL_BYTES < BLOCK_BYTES
