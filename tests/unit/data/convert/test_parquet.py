"""Parquet files are read row by row, and what JSON has no value for is never written."""

import json
from datetime import date
from pathlib import Path

import pytest

from trainer.data.convert.files import convert_file
from trainer.data.convert.tables import read_parquet
from trainer.data.read.rows import read_conversations
from trainer.errors import ConfigError, DataError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

TURNS = [[{"from": "human", "value": f"{n}?"}, {"from": "gpt", "value": f"{n}"}] for n in range(3000)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(**columns):
    parquet.write_table(pyarrow.table(columns), "FILE")
    return Path("FILE")


def test_rows_are_read_in_their_order_with_their_numbers():
    rows = list(read_parquet(write(conversations=TURNS)))
    assert rows == [(n + 1, {"conversations": turns}) for n, turns in enumerate(TURNS)]


def test_what_the_checker_says_to_run_works_and_what_is_not_text_is_counted():
    source = write(conversations=TURNS, made=[date(2024, 1, 1)] * len(TURNS), tools=[None] * len(TURNS))
    (finding,) = read_conversations(source).findings
    assert (finding.found, finding.fix) == ("is a Parquet file", "run: trainer data convert FILE")
    conversion = convert_file(source)
    assert (conversion.num_written, conversion.layout, conversion.encoding) == (3000, "a Parquet file", None)
    assert conversion.dropped == {"made": 3000}
    report = read_conversations(conversion.output)
    assert (report.errors, len(report.conversations)) == ([], 3000)
    first = json.loads(conversion.output.read_text().splitlines()[0])
    assert first == {"messages": [{"role": "user", "content": "0?"}, {"role": "assistant", "content": "0"}]}


def test_a_date_within_a_row_is_told():
    source = write(prompt=["Hi"], answer=["Hello"], metadata=[{"made": date(2024, 1, 1)}], messages=[
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]])  # fmt: skip
    with pytest.raises(DataError, match=r"FILE:1: JSON: the row holds a value that JSON has not \(Object of type date"):
        convert_file(source)


def test_a_damaged_file_is_told_and_nothing_is_left():
    source = write(conversations=TURNS)
    source.write_bytes(source.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"^FILE: cannot be read as Parquet \("):
        convert_file(source)
    assert [path.name for path in Path().iterdir()] == ["FILE"]


def test_an_encoding_of_a_parquet_file_is_refused():
    with pytest.raises(ConfigError, match=r"^--encoding: is given for a Parquet file, expected one for text only"):
        convert_file(write(conversations=TURNS[:1]), encoding="utf-8")
