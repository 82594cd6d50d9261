"""Corrected rows: checked as data is, kept aside, and written as a new version byte for byte."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from trainer.dashboard.datasets import edits as module
from trainer.dashboard.datasets.edits import Edits, append_to_set, checked_row, next_version
from trainer.dashboard.datasets.files import DataSet, DataSets, id_of
from trainer.errors import ConfigError, DataError


def row(question: str, answer: str = "yes") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def text_of(question: str) -> str:
    return json.dumps(row(question))


def data_set(path: Path, content: bytes) -> DataSet:
    path.write_bytes(content)
    return DataSet(id_of(path), path, len(content))


BOM, LINES = b"\xef\xbb\xbf", [f'{{"messages": "{n}", "x":  1}}'.encode() for n in range(4)]


@pytest.mark.parametrize(
    ("content", "corrected", "expected"),
    [
        (b"\n".join(LINES), {2: "new"}, b"\n".join([LINES[0], b"new", *LINES[2:]])),
        (b"\r\n".join(LINES) + b"\r\n", {1: "new", 3: None}, b"\r\n".join([b"new", LINES[1], LINES[3], b""])),
        (BOM + b"\n\n".join(LINES), {1: "new"}, BOM + b"\n\n".join([b"new", *LINES[1:]])),
        (BOM + b"\n".join(LINES), {1: None, 4: None}, BOM + b"\n".join([*LINES[1:3], b""])),
        (b"\n".join(LINES), {4: "at its end"}, b"\n".join([*LINES[:3], b"at its end"])),
        (b"\n".join(LINES), {1: None, 2: None, 3: "new"}, b"\n".join([b"new", LINES[3]])),
    ],
)  # fmt: skip
def test_a_version_differs_in_the_corrected_rows_alone(
    tmp_path: Path, content: bytes, corrected: dict[int, str | None], expected: bytes
) -> None:
    file, edits = data_set(tmp_path / "rows.jsonl", content), Edits(tmp_path / "runs")
    for line, text in corrected.items():
        edits.set(file, line, text)
    version = edits.write_version(file)
    assert version == tmp_path / "rows.v2.jsonl"
    assert version.read_bytes() == expected
    assert file.path.read_bytes() == content
    assert edits.of(file) == {}


def test_corrections_of_a_file_that_has_changed_are_not_those_of_the_new_one(tmp_path: Path) -> None:
    file, edits = data_set(tmp_path / "rows.jsonl", b"one\ntwo\n"), Edits(tmp_path / "runs")
    edits.set(file, 1, "corrected")
    assert edits.of(file) == {1: "corrected"}
    file.path.write_bytes(b"another\none\ntwo\n")
    assert edits.of(file) == {}
    with pytest.raises(ConfigError, match=r"rows\.jsonl: has no corrections, expected one at least"):
        edits.write_version(file)


def test_corrections_that_are_saved_at_once_are_all_kept(tmp_path: Path) -> None:
    file, edits = data_set(tmp_path / "rows.jsonl", b"one\n" * 20), Edits(tmp_path / "runs")
    with ThreadPoolExecutor(20) as threads:
        list(threads.map(lambda line: edits.set(file, line, f"new {line}"), range(1, 21)))
    assert edits.of(file) == {line: f"new {line}" for line in range(1, 21)}


def test_a_correction_that_is_saved_while_a_version_is_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, edits = data_set(tmp_path / "rows.jsonl", b"one\ntwo\nthree\n"), Edits(tmp_path / "runs")
    for line in (1, 2):
        edits.set(file, line, "first")
    copy = module._copy

    def meanwhile(*given: Any) -> None:
        copy(*given)
        for line in (2, 3):
            edits.set(file, line, "second")

    monkeypatch.setattr(module, "_copy", meanwhile)
    assert edits.write_version(file).read_bytes() == b"first\nfirst\nthree\n"
    assert edits.of(file) == {2: "second", 3: "second"}


def test_corrections_from_before_a_change_are_told_and_kept(tmp_path: Path) -> None:
    file, edits = data_set(tmp_path / "rows.jsonl", b"one\ntwo\n"), Edits(tmp_path / "runs")
    edits.set(file, 1, "corrected")
    assert edits.earlier(file) == {}
    os.utime(file.path, ns=(0, 0))
    assert list(edits.earlier(file).values()) == [1]
    edits.set(file, 2, "of the new one")
    (path,) = edits.earlier(file)
    assert json.loads(path.read_text())["rows"] == {"1": "corrected"}
    edits.write_version(file)
    edits.discard(file)
    assert list(edits.earlier(file)) == [path]
    edits.set(file, 2, "again")
    edits.discard_earlier(file)
    assert (edits.earlier(file), edits.of(file)) == ({}, {2: "again"})


def test_a_correction_is_undone(tmp_path: Path) -> None:
    file, edits = data_set(tmp_path / "rows.jsonl", b"one\ntwo\n"), Edits(tmp_path / "runs")
    edits.set(file, 1, "corrected")
    edits.set(file, 2, None)
    edits.undo(file, 1)
    assert edits.of(file) == {2: None}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "column 2: JSON: the row ends"),
        ('["no row"]', "ROW: the row is no object, expected an object with messages"),
        (text_of("What?").replace("user", "human"), "ROLE: messages[0].role is 'human'"),
        ('{"messages": []}', "MESSAGES: messages is an empty list"),
        ('{"prompt": "a", "completion": "b"}', "FORMAT: the row has the prompt/completion layout"),
    ],
)
def test_what_the_rules_refuse_is_refused_in_their_words(text: str, sentence: str) -> None:
    with pytest.raises(DataError) as refused:
        checked_row(text, "rows.jsonl", 3, None)
    assert sentence in refused.value.problems[0], refused.value.problems


def test_a_row_that_is_spread_over_lines_becomes_one_line() -> None:
    made, _ = checked_row(json.dumps(row("Grüße?"), indent=4), "rows.jsonl", 1, "sft")
    assert made == json.dumps(row("Grüße?"), ensure_ascii=False)


def test_a_preference_row_is_held_to_the_rules_of_pairs() -> None:
    answers = [{"role": "assistant", "content": "a"}], [{"role": "assistant", "content": "b"}]
    asked = {"messages": [{"role": "user", "content": "What?"}]}
    pair = {"input": asked, "preferred_output": answers[0], "non_preferred_output": answers[1]}
    assert json.loads(checked_row(json.dumps(pair), "rows.jsonl", 1, "dpo")[0]) == pair
    with pytest.raises(DataError, match="has the chat format"):
        checked_row(text_of("What?"), "rows.jsonl", 1, "dpo")


def test_versions_count_on_and_replace_none(tmp_path: Path) -> None:
    assert next_version(tmp_path / "a.jsonl").name == "a.v2.jsonl"
    (tmp_path / "a.v3.jsonl").touch()
    assert next_version(tmp_path / "a.v2.jsonl").name == "a.v4.jsonl"
    own = tmp_path / ".ui" / "files"
    own.mkdir(parents=True)
    name = next_version(own / "0123456789ab-rows.v2.jsonl").name
    assert name.endswith("-rows.v3.jsonl")
    assert not name.startswith("0123456789ab")


def test_a_set_grows_until_a_run_has_read_it(tmp_path: Path) -> None:
    own = DataSets(tmp_path / "runs").own
    first = append_to_set(own, "answers", row("one"), frozenset())
    assert append_to_set(own, "answers.jsonl", row("two"), frozenset()) == first
    content = first.read_bytes()
    second = append_to_set(own, "answers", row("three"), frozenset([first.resolve()]))
    assert first.read_bytes() == content
    assert [json.loads(line)["messages"][0]["content"] for line in second.read_text().splitlines()] == [
        "one",
        "two",
        "three",
    ]
    assert append_to_set(own, "answers", row("four"), frozenset([first.resolve()])) == second
    assert append_to_set(own, "answers-2", row("one"), frozenset()) not in (first, second)
    for name in ("", "../up", ".hidden", "a/b", "x" * 62):
        with pytest.raises(ConfigError, match="the set's name is"):
            append_to_set(own, name, row("one"), frozenset())
