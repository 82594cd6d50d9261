"""Rows are made of arrays when they are asked for, each from its own conversation; those left out are not there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.config import RunConfig
from trainer.data.read import sources
from trainer.data.read.checks import DataReport, check_files
from trainer.data.read.sources import check_data
from trainer.data.render.rendering import Renderer
from trainer.errors import DataError
from trainer.model.base import find_base, load_tokenizer
from trainer.runs.files import sha256_of
from trainer.training.dataset import Row, TrainingData, render_data

LONG = "word " * 120


@pytest.fixture
def data(settings: Callable[..., RunConfig], write_rows: Callable[..., Path]) -> TrainingData:
    train = write_rows(
        [("What is 0?", LONG), ("What is 1?", "It is 1."), ("2?", LONG), ("What is 3?", "3.")], "a.jsonl"
    )
    held_out = write_rows([("What is 4?", LONG), ("What is 5?", "It is 5."), ("What is 6?", "6.")], "b.jsonl")
    config = settings(data__train=str(train), data__validation=str(held_out), data__on_overlength="drop")
    renderer = Renderer(load_tokenizer(find_base(config.model), config.model))
    made = render_data(check_data(config.data, "sft"), config.data, renderer, 100)
    for rows, conversations in ((made.train, made.report.conversations), (made.validation, made.report.validation)):
        rendered = [Row(c, tuple(renderer.render(c))) for c in conversations if c.messages[-1].content != LONG]
        assert list(rows) == rendered
        assert [rows[number] for number in range(-len(rows), 0)] == rendered
        assert rows[1:] == tuple(rendered[1:])
    return made


def test_rows_without_an_example_are_left_out_and_each_keeps_its_own(data: TrainingData) -> None:
    assert [(len(data.train), len(data.validation)), len(data.touched)] == [(2, 2), 3]
    assert [row.line for row in data.train.conversations] == [2, 4]
    assert [row.line for row in data.validation.conversations] == [2, 3]


def test_what_is_counted_in_arrays_is_what_the_rows_have(data: TrainingData) -> None:
    assert data.train.num_tokens.tolist() == [row.num_tokens for row in data.train]
    assert data.validation.num_supervised.tolist() == [row.num_supervised for row in data.validation]
    assert (data.num_tokens, data.num_supervised) == tuple(
        sum(getattr(row, name) for row in data.train) for name in ("num_tokens", "num_supervised")
    )
    assert data.longest == max(len(e.input_ids) for row in (*data.train, *data.validation) for e in row.examples)


def test_each_file_has_its_digest(data: TrainingData) -> None:
    assert [(Path(file.path).name, file.role) for file in data.files] == [
        ("a.jsonl", "train"),
        ("b.jsonl", "validation"),
    ]
    assert all(file.sha256 == sha256_of(file.path) for file in data.files)


def test_a_file_that_changes_while_it_is_read_is_refused(
    settings: Callable[..., RunConfig], write_rows: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows([("What is one?", "It is 1.")], "rows.jsonl")
    config = settings(data__train=str(path), data__validation=None)

    def changed_after(*arguments: Any, **named: Any) -> DataReport:
        report = check_files(*arguments, **named)
        path.write_text(path.read_text().replace("1", "7"))
        return report

    monkeypatch.setattr(sources, "check_files", changed_after)
    with pytest.raises(DataError, match=r"rows.jsonl: the file was changed while it was read, .*; try again"):
        check_data(config.data, "sft")
