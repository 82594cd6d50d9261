"""Which rows are compared: drawn with the seed, shortened as in training, and known by what they say."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CHATML, make_tokenizer, talk
from tests.manifests import data_file, manifest
from trainer.config import RunConfig
from trainer.config.schema import EvaluationConfig
from trainer.data.conversations import Conversation
from trainer.data.render.overlength import longest
from trainer.data.render.rendering import Renderer
from trainer.errors import ConfigError, DataError
from trainer.inference.evaluation.held_out import Found, HeldOut, find_held_out, trained_files
from trainer.inference.evaluation.local_model import TemplateQuestions, render_held_out
from trainer.inference.evaluation.questions import ask
from trainer.runs import Run, create_run
from trainer.runs.files import sha256_of
from trainer.runs.manifest import ParentRun
from trainer.training.dataset import Row

Settings = Callable[..., RunConfig]


@pytest.fixture
def renderer() -> Renderer:
    return Renderer(make_tokenizer(CHATML, ["<|im_start|>", "<|im_end|>"]))


def row(line: int, *turns: str) -> Conversation:
    said = [pair for text in turns for pair in (("user", f"{text}?"), ("assistant", f"{text}."))]
    made = talk(*said)
    return Conversation(made.messages, (), "rows.jsonl", line)


def held_out(config: RunConfig, renderer: Renderer, rows: list[Conversation], max_rows: int = 50) -> HeldOut:
    return rendered(config, renderer, rows, max_rows)[0]


def rendered(
    config: RunConfig, renderer: Renderer, rows: list[Conversation], max_rows: int = 50
) -> tuple[HeldOut, tuple[Row, ...]]:
    limits = EvaluationConfig(max_rows=max_rows)
    return render_held_out(Found(rows, ("rows.jsonl",), ("noted",), ()), config, limits, renderer, 2048)


def lines(found: HeldOut) -> list[int]:
    return [row.line for row in found.rows]


def test_the_seed_draws_the_rows_which_stay_in_order(settings: Settings, renderer: Renderer) -> None:
    rows = [row(number, f"Row {number}") for number in range(1, 101)]
    first, again = (held_out(settings(training__seed=7), renderer, rows, max_rows=10) for _ in range(2))
    other = held_out(settings(training__seed=8), renderer, rows, max_rows=10)
    assert (len(first.rows), first.total, lines(first)) == (10, 100, sorted(lines(first)))
    assert lines(first) == lines(again) != lines(other)
    assert lines(held_out(settings(), renderer, rows, max_rows=100)) == list(range(1, 101))


def test_rows_are_known_by_what_they_say(settings: Settings, renderer: Renderer) -> None:
    one, two = row(1, "One"), row(2, "Two")
    same = held_out(settings(), renderer, [row(5, "One"), row(9, "Two")])
    found = [held_out(settings(), renderer, rows).sha256 for rows in ([one, two], [two, one], [one])]
    assert same.sha256 == found[0]
    assert len(set(found)) == 3


def test_a_row_that_was_shortened_in_training_is_asked_as_it_was_trained(
    settings: Settings, renderer: Renderer
) -> None:
    whole = row(1, "First" * 20, "Second", "Third")
    config = settings(data__max_length=120, data__on_overlength="truncate")
    found, trained = rendered(config, renderer, [whole, row(2, "Short")])
    assert [len(row.messages) for row in found.rows] == [4, 2]
    assert [row.conversation for row in trained] == list(found.rows)
    assert longest(renderer.render(found.rows[0])) <= 120
    local = TemplateQuestions(renderer)
    questions = ask(found.rows, local.reference)
    for question in questions:
        prompt = tuple(local.prompt(question.conversation, question.message).ids)
        assert any(example.input_ids[: len(prompt)] == prompt for example in trained[question.row].examples)
    assert found.notes[0] == "noted"
    assert found.notes[1].startswith("rows.jsonl:1: ")
    assert found.notes[1].endswith(" tokens, truncated")


def test_many_rows_that_were_dropped_are_counted(settings: Settings, renderer: Renderer) -> None:
    config = settings(data__max_length=60, data__on_overlength="drop")
    found = held_out(config, renderer, [row(1, "A"), *(row(number, "Long" * 30) for number in range(2, 10))])
    assert (lines(found), found.total, len(found.notes)) == ([1], 1, 7)
    assert found.notes[-1] == "and 3 more rows that were too long"


def test_rows_that_are_all_too_long_are_refused(settings: Settings, renderer: Renderer) -> None:
    config = settings(data__max_length=20, data__on_overlength="drop")
    with pytest.raises(ConfigError, match=r"rows\.jsonl: no row is left after dropping those over 20 tokens"):
        held_out(config, renderer, [row(1, "A" * 40)])
    with pytest.raises(DataError, match="row exceeds 20 tokens"):
        held_out(settings(data__max_length=20), renderer, [row(1, "A" * 40)])


def lineage(settings: Settings, write_rows: Callable[..., Path], tmp_path: Path) -> tuple[Run, Run]:
    """A run, and one that trained its adapter further on the same file, which held other rows by then."""
    runs = []
    for number in range(2):
        train = write_rows([("How many?", f"{number}.")], "trained.jsonl")
        base = {} if not runs else {"model__base": str(runs[0].path)}
        run = create_run(settings(run__root=str(tmp_path), run__name=f"run-{number}", **base))
        data = (data_file(str(train), "train", sha256_of(train)),)
        run.write_manifest(manifest(data=data, parent=ParentRun("run-0", None) if runs else None))
        runs.append(run)
    return runs[0], runs[1]


def test_a_file_that_changed_between_two_runs_is_gone_for_the_first(
    settings: Settings, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    first, second = lineage(settings, write_rows, tmp_path)
    (train,) = [file.path for file in second.manifest().data]
    assert trained_files(first) == ((), (train,))
    assert trained_files(second) == ((train,), (train,))


@pytest.mark.parametrize("damaged", ["manifest.json", "config.yaml"])
def test_an_earlier_run_that_cannot_be_read_is_gone(
    settings: Settings, write_rows: Callable[..., Path], tmp_path: Path, damaged: str
) -> None:
    """The run itself is compared: what it says of its ancestors is all that is missing."""
    first, second = lineage(settings, write_rows, tmp_path)
    third = create_run(settings(run__root=str(tmp_path), run__name="run-2", model__base=str(second.path)))
    third.write_manifest(manifest(parent=ParentRun("run-1", None)))
    (second.path / damaged).write_text("{")
    trained, gone = trained_files(third)
    assert str(second.path) in gone
    assert set(trained) <= {file.path for file in first.manifest().data}


def test_runs_that_name_each_other_end(settings: Settings, tmp_path: Path) -> None:
    """A folder that was replaced by a run which continues a copy of it."""
    run = create_run(settings(run__root=str(tmp_path), run__name="loop", model__base=str(tmp_path / "loop")))
    run.write_manifest(manifest(parent=ParentRun("loop", None)))
    assert trained_files(run) == ((), (str(run.path),))


def test_without_validation_data_a_file_is_needed(settings: Settings, tmp_path: Path) -> None:
    config = settings(data__validation=None, run__name="plain")
    with pytest.raises(ConfigError, match="has no held-out rows"):
        find_held_out(create_run(config), config)
