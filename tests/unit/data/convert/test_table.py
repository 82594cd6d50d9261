"""Tables as spreadsheets and databases export them."""

import io
from pathlib import Path

import pytest

from trainer.data.convert.tables import read_table
from trainer.data.json_scanner import JsonProblem
from trainer.errors import DataError


def read(text, known=()):
    return list(read_table(Path("FILE"), io.StringIO(text, newline=""), lambda names: set(known) <= set(names)))


TABLES = {
    "commas": ("q,a\n1,2\n", [(2, {"q": "1", "a": "2"})]),
    "semicolons, with commas in the text": ("q;a\n1,5;2,5\n", [(2, {"q": "1,5", "a": "2,5"})]),
    "tabs and CRLF": ("q\ta\r\n1\t2\r\n", [(2, {"q": "1", "a": "2"})]),
    "a line end and a quote inside of a cell": (
        'q,a\n"1\n""x""",2\n3,4\n', [(2, {"q": '1\n"x"', "a": "2"}), (4, {"q": "3", "a": "4"})]),
    "blank lines": ("q,a\n\n1,2\n , \n3,4\n", [(3, {"q": "1", "a": "2"}), (5, {"q": "3", "a": "4"})]),
    "spaces around the names": (" q , a \n1,2\n", [(2, {"q": "1", "a": "2"})]),
    "a delimiter that Excel names in a line of its own": (
        "sep=|\r\nq|a\r\n1,5|2;5\r\n", [(3, {"q": "1,5", "a": "2;5"})]),
    "a column without a name": (",q,a\n0,1,2\n", [(2, {"": "0", "q": "1", "a": "2"})]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TABLES.values(), ids=TABLES)
def test_records(text, expected):
    assert read(text) == expected


def test_the_delimiter_that_gives_known_columns_is_taken():
    text = "asked, or so;answer\n1, 2;3\n"
    assert read(text) == [(2, {"asked": "1", "or so;answer": " 2;3"})]
    assert read(text, known=["answer"]) == [(2, {"asked, or so": "1, 2", "answer": "3"})]


def test_a_column_alone_is_a_table_where_it_is_known():
    assert read('messages\n"[{""a"": 1}]"\n', known=["messages"]) == [(2, {"messages": '[{"a": 1}]'})]
    with pytest.raises(DataError, match="holds neither JSON nor columns"):
        read("notes\nHi\n", known=["messages"])


def test_a_record_that_cannot_be_read_is_told_and_the_next_one_is_read():
    assert read('q,a\n1\n"1"x,2\n3,4\n5,\0\n') == [
        (2, JsonProblem("CSV", 0, "has 1 cells", "2, as the header has")),
        (3, JsonProblem("CSV", 0, "cannot be read (',' expected after '\"')", 'quotes that close, "" inside')),
        (4, {"q": "3", "a": "4"}),
        (5, JsonProblem("CSV", 0, "holds a NUL character", "text")),
    ]


def test_a_quote_that_never_closes_is_told_where_it_opens():
    assert read('q,a\n1,2\n3,"4\n5,6\n') == [
        (2, {"q": "1", "a": "2"}),
        (3, JsonProblem("CSV", 0, "cannot be read (unexpected end of data)", 'quotes that close, "" inside')),
    ]


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(DataError, match=r"^FILE:1: has two columns named 'a', expected a name of its own"):
        read("a,b,a\n1,2,3\n")
