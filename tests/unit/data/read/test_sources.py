"""A data file is one file, however it is spelled: its weight, its digest and its name on a node."""

import json
from collections import Counter
from pathlib import Path

import pytest

from trainer.config.schema import DataConfig, DataSource
from trainer.data.read.sources import apart, check_data, row_names, weights_of
from trainer.runs.files import sha256_of
from trainer.training.order import epoch_order

SPELLINGS = ("data/a.jsonl", "./data/a.jsonl", "data//a.jsonl", "data/../data/a.jsonl", "link.jsonl", "folder/a.jsonl")


def rows(first, count):
    turns = ([("user", f"What is {n}?"), ("assistant", f"It is {n}.")] for n in range(first, first + count))
    return "".join(json.dumps({"messages": [{"role": r, "content": c} for r, c in turn]}) + "\n" for turn in turns)


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """Two files of ten rows, the first of them to be found by a link and through a linked folder too."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/a.jsonl").write_text(rows(0, 10))
    Path("data/b.jsonl").write_text(rows(10, 10))
    Path("link.jsonl").symlink_to("data/a.jsonl")
    Path("folder").symlink_to("data")
    return tmp_path


def used(settings):
    """How often an epoch uses the rows of each file, by the rows' numbers."""
    checked = check_data(settings, "sft")
    files = [row.file for row in checked.report.conversations]
    order = epoch_order(files, weights_of(checked.files), seed=0, epoch=0)
    questions = [checked.report.conversations[number].messages[0].content for number in order]
    return Counter("a" if int(text[8:-1]) < 10 else "b" for text in questions)


@pytest.mark.parametrize("path", [*SPELLINGS, "absolute"])
def test_a_weight_counts_however_its_file_is_spelled(path, project):
    path = str(project / "data" / "a.jsonl") if path == "absolute" else path
    assert used(DataConfig(train=[DataSource(path=path, weight=3), "data/b.jsonl"])) == {"a": 30, "b": 10}


def test_the_weights_of_a_file_that_is_listed_twice_add_up():
    twice = [DataSource(path="data/a.jsonl", weight=2), DataSource(path="./data/a.jsonl", weight=0.5), "data/b.jsonl"]
    assert used(DataConfig(train=twice)) == {"a": 25, "b": 10}


def test_each_listed_file_has_its_role_rows_and_digest(project):
    files = check_data(DataConfig(train=["./data/a.jsonl", "link.jsonl"], validation="data//b.jsonl"), "sft").files
    a, b = project / "data" / "a.jsonl", project / "data" / "b.jsonl"
    assert [(file.role, file.path, file.sha256, file.rows) for file in files] == [
        ("train", "./data/a.jsonl", sha256_of(a), 10),
        ("train", "link.jsonl", sha256_of(a), 10),
        ("validation", "data//b.jsonl", sha256_of(b), 10),
    ]
    names = {"./data/a.jsonl": "data/a.jsonl", "link.jsonl": "data/a.jsonl", "data//b.jsonl": "data/b.jsonl"}
    assert row_names(file.path for file in files) == names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/2-train.jsonl", "b/train.jsonl", "c/train.jsonl"], ["2-train.jsonl", "train.jsonl", "3-train.jsonl"]),
        (["a/x.jsonl", "b/x.jsonl", "c/1-x.jsonl"], ["x.jsonl", "1-x.jsonl", "2-1-x.jsonl"]),
        (["data/a.jsonl", "./data/a.jsonl", "link.jsonl"], ["a.jsonl", "a.jsonl", "a.jsonl"]),
        (["x/a.jsonl", "y/a.jsonl", "x//a.jsonl"], ["a.jsonl", "1-a.jsonl", "a.jsonl"]),
    ],
)
def test_two_files_have_two_names_and_one_file_has_one(paths, names):
    assert list(apart(paths).values()) == names
