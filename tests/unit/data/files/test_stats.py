"""The numbers of a file are those that one counts by hand, and what has an error is not mixed in."""

import json
from pathlib import Path

import pytest

from trainer.data.files.stats import Bin, measure_files
from trainer.errors import DataError

HI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"type": "function", "function": {"name": "f"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ROWS = [
    {"messages": HI},
    {"messages": HI},
    {"messages": [HI[0], {"role": "assistant", "content": " Hello"}]},
    {"messages": [HI[0], {"role": "assistant", "content": "Bye"}]},
    {"messages": [SYSTEM, HI[0], HI[1] | {"weight": 0}, *HI]},
    {"messages": [SYSTEM, HI[0], {"role": "assistant", "tool_calls": [CALL]}], "tools": [TOOL]},
    {"messages": []},
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name, *rows):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Path(name)


def test_rows_are_counted():
    rows = measure_files([write("a.jsonl", *ROWS)], []).train.rows
    assert (rows.rows, rows.rows_with_errors) == (7, 1)
    assert (rows.duplicates, rows.near_duplicates, rows.same_prompts) == (1, 1, 1)
    assert (rows.system_prompts, rows.rows_without_system_prompt) == (1, 4)
    assert (rows.answers, rows.untrained_answers) == (7, 1)
    assert (rows.tool_calls, rows.rows_with_tools) == (1, 1)
    assert (rows.turns.total, rows.turns.min, rows.turns.max) == (7, 1, 2)
    assert rows.turns.histogram == (Bin(1, 1, 5), Bin(2, 2, 1))
    assert rows.characters.total == 7 + 7 + 8 + 5 + (9 + 14) + (9 + 2 + 3)


def test_each_side_has_its_own_numbers_and_what_is_in_both_is_a_leak():
    train, held_out = write("a.jsonl", *ROWS[:2]), write("b.jsonl", ROWS[0], ROWS[4])
    measured = measure_files([train], [held_out])
    assert measured.validation is not None
    assert (measured.train.rows.rows, measured.validation.rows.rows, measured.leaks) == (2, 2, 1)
    assert (measured.train.rows.duplicates, measured.validation.rows.duplicates) == (1, 0)
    assert measured.train.tokens is None


def test_what_machines_read_has_the_same_numbers():
    measured = measure_files([write("a.jsonl", *ROWS)], [])
    told = json.loads(json.dumps(measured.to_json()))
    assert told["train"]["rows"] == 7
    assert told["train"]["characters"]["max"] == measured.train.rows.characters.max
    assert told["train"]["turns"]["histogram"] == [
        {"first": 1, "last": 1, "rows": 5},
        {"first": 2, "last": 2, "rows": 1},
    ]
    assert (told["train"]["tokens"], told["validation"], told["leaks"]) == (None, None, 0)


@pytest.mark.parametrize("held_out", [[], ["b.jsonl"]])
def test_a_side_without_a_sound_row_is_refused_with_its_errors(held_out):
    good, bad = write("a.jsonl", *ROWS), write("b.jsonl", {"messages": []})
    with pytest.raises(DataError, match=r"b\.jsonl:1: MESSAGES: "):
        measure_files([good if held_out else bad], [Path(name) for name in held_out])
