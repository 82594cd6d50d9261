"""A log's lines are found from its end, by level and text, page after page; new ones come once."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.runs.growth import end_cursor
from trainer.runs.log_search import MOST, LogFilter, LogLine, LogPage, lines_since, lines_up_to


def event(message: str, level: str = "info") -> str:
    return json.dumps({"created_at": "2026-11-29T05:00:00.000+00:00", "level": level, "message": message}) + "\n"


def all_pages(path: Path, wanted: LogFilter, most_read: int) -> list[LogPage]:
    pages = [lines_up_to(path, wanted, most_read=most_read)]
    while pages[-1].earlier is not None:
        pages.append(lines_up_to(path, wanted, pages[-1].earlier, most_read))
    return pages


LEVELS = st.sampled_from(["info", "warning", "error"])


@given(
    said=st.lists(st.tuples(LEVELS, st.sampled_from(["Checkpoint", "spike", "Ünïcode", "a\nb"])), max_size=60),
    level=LEVELS,
    text=st.sampled_from(["", "check", "ÜNÏ", "no such"]),
    most_read=st.integers(1, 30),
)
def test_pages_together_hold_the_wanted_lines_in_order(tmp_path_factory, said, level, text, most_read) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    path.write_text("".join(event(f"{message} {number}", of) for number, (of, message) in enumerate(said)))
    order = ["info", "warning", "error"]
    expected = [
        f"{message} {number}"
        for number, (of, message) in enumerate(said)
        if order.index(of) >= order.index(level) and text.casefold() in message.casefold()
    ]
    pages = all_pages(path, LogFilter(level, text), most_read)
    assert [line.text for page in pages[::-1] for line in page.lines] == expected
    assert all(page.num_read <= most_read for page in pages)


def test_a_page_is_the_newest_lines_and_says_where_earlier_ones_are(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(event(f"number {number}") for number in range(MOST + 5)))
    page = lines_up_to(path, LogFilter())
    assert [page.lines[0].text, page.lines[-1].text] == ["number 5", f"number {MOST + 4}"]
    assert page.earlier is not None
    earlier = lines_up_to(path, LogFilter(), page.earlier)
    assert [line.text for line in earlier.lines] == [f"number {number}" for number in range(5)]
    assert earlier.earlier is None


def test_what_the_process_printed_has_no_level_and_no_control_sequences(tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    path.write_text("\x1b[31mred\x1b[0m and \x07bell\n\n10%\r20%\r100%\r\n\x1b]0;title\x07x\n")
    page = lines_up_to(path, LogFilter("error"))
    assert page.lines == [LogLine("", None, "red and bell"), LogLine("", None, "100%"), LogLine("", None, "]0;titlex")]


def test_a_damaged_line_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"level": "info"\n[1]\n' + event("whole", "odd") + "\n")
    assert [(line.level, line.text) for line in lines_up_to(path, LogFilter()).lines] == [
        ("warning", 'damaged line: {"level": "info"'),
        ("warning", "damaged line: [1]"),
        ("info", "whole"),
    ]


@pytest.mark.parametrize(("level", "expected"), [("info", ["new", "bad"]), ("error", ["bad"])])
def test_new_lines_come_once_and_filtered(tmp_path: Path, level: str, expected: list[str]) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(event("old"))
    cursor = end_cursor(path)
    with path.open("a") as file:
        file.write(event("new") + event("bad", "error") + '{"torn')
    lines, after, starts_over = lines_since(path, LogFilter(level), cursor)
    assert [line.text for line in lines] == expected
    assert not starts_over
    assert lines_since(path, LogFilter(level), after) == ([], after, False)


def test_a_log_that_is_not_there_yet_has_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert lines_up_to(path, LogFilter()) == LogPage([], None, 0)
    assert lines_since(path, LogFilter(), "") == ([], "", False)
    path.write_text(event("first"))
    assert [line.text for line in lines_since(path, LogFilter(), "")[0]] == ["first"]
