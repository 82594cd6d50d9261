"""Rows keep their bytes, whatever the file looks like."""

import io
from pathlib import Path

import pytest

from trainer.data.files import new_files
from trainer.data.files.new_files import copy_rows

ROWS = b"\xef\xbb\xbfone\r\n\n  \r\n two \n\xff\x00\n\nlast"


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    return path


def test_each_row_keeps_its_bytes_and_only_the_last_is_given_a_line_end(source):
    copy = io.BytesIO()
    assert copy_rows(source, lambda line: copy) == 3
    assert copy.getvalue() == b"one\r\n two \n\xff\x00\nlast\n"


def test_rows_are_known_by_the_numbers_of_their_lines(source):
    copies = {line: io.BytesIO() for line in range(1, 8)}
    copy_rows(source, copies.get)
    assert {line: copy.getvalue() for line, copy in copies.items() if copy.getvalue()} == {
        1: b"one\r\n",
        4: b" two \n",
        5: b"\xff\x00\n",
        7: b"last\n",
    }


def test_a_row_that_goes_nowhere_is_left_out(source):
    copy = io.BytesIO()
    copy_rows(source, lambda line: copy if line == 7 else None)
    assert copy.getvalue() == b"last\n"


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_row_longer_than_a_chunk_is_whole(source, monkeypatch, size):
    monkeypatch.setattr(new_files, "_CHUNK_BYTES", size)
    copy = io.BytesIO()
    copy_rows(source, lambda line: copy)
    assert copy.getvalue() == b"one\r\n two \n\xff\x00\nlast\n"
