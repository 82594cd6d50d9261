"""Rendered rows from the cache are those that are rendered, whatever else happens to it."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.config import RunConfig
from trainer.data.read.sources import check_data
from trainer.data.render.rendering import Renderer
from trainer.errors import DataError
from trainer.model.base import find_base, load_tokenizer
from trainer.training import dataset, token_cache
from trainer.training.dataset import TrainingData, render_data

LONG = {"messages": [{"role": role, "content": "word " * 60} for role in ("user", "assistant")] * 2}
MAX_LENGTH = 200


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(dataset, "MIN_ROWS", 1)
    monkeypatch.setattr(token_cache, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def config(settings: Callable[..., RunConfig], write_rows: Callable[..., Path]) -> RunConfig:
    rows = [("What is one?", "It is 1."), LONG, ("What is two?", "It is 2."), {"messages": LONG["messages"][:2]}]
    return settings(data__train=str(write_rows(rows, "rows.jsonl")), data__on_overlength="truncate")


def rendered(config: RunConfig, max_length: int = MAX_LENGTH) -> TrainingData:
    tokenizer = load_tokenizer(find_base(config.model), config.model)
    renderer = Renderer(tokenizer, config.data.train_reasoning is not False)
    return render_data(check_data(config.data, "sft"), config.data, renderer, max_length)


def same(a: TrainingData, b: TrainingData) -> bool:
    return contents(a) == contents(b)


def contents(data: TrainingData) -> tuple[Any, ...]:
    return tuple(data.train), tuple(data.validation), data.weights, data.touched


def refuse(*_: Any) -> Any:
    raise AssertionError("a row is rendered")


def test_the_second_start_renders_nothing_and_has_the_same_rows(
    config: RunConfig, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "MIN_ROWS", 1000)
    plain = rendered(config)
    assert not cache.exists()
    monkeypatch.setattr(dataset, "MIN_ROWS", 1)
    assert plain.touched
    assert same(rendered(config), plain)
    monkeypatch.setattr(Renderer, "render", refuse)
    assert same(rendered(config), plain)
    assert len(list(cache.iterdir())) == 1
    assert cache.stat().st_mode & 0o777 == 0o700


def test_anything_that_the_tokens_depend_on_makes_new_ones(
    config: RunConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered(config)
    rendered(config, MAX_LENGTH + 1)
    rendered(config.model_copy(update={"data": config.data.model_copy(update={"on_overlength": "drop"})}))
    rendered(config.model_copy(update={"data": config.data.model_copy(update={"train_reasoning": False})}))
    template = tmp_path / "template.jinja"
    tokenizer = load_tokenizer(find_base(config.model), config.model)
    template.write_text(str(tokenizer.chat_template) + "{# another #}")
    rendered(config.model_copy(update={"model": config.model.model_copy(update={"chat_template": str(template)})}))
    assert len(list(cache.iterdir())) == 5
    path = Path(str(config.data.train))
    path.write_text(path.read_text().replace("It is 1.", "It is 7."))
    changed = rendered(config)
    assert len(list(cache.iterdir())) == 6
    assert changed.train[0].conversation.messages[1].content == "It is 7."
    monkeypatch.setattr(dataset, "MIN_ROWS", 1000)
    assert same(changed, rendered(config))


@pytest.mark.parametrize("damage", ["cut", "flipped", "a note", "a name", "empty", "text"])
def test_a_damaged_file_is_not_used_and_made_anew(config: RunConfig, cache: Path, damage: str) -> None:
    plain = rendered(config)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    place = whole.index(plain.train[0].examples[0].input_ids[3].to_bytes(4, "little"))
    flipped[place] ^= 1
    damaged = {
        "cut": whole[: len(whole) // 2],
        "flipped": flipped,
        "a note": whole.replace(b"rows.jsonl:2", b"rows.jsonl:3"),
        "a name": whole.replace(b'"touched"', b'"tOuched"'),
        "empty": b"",
        "text": b"no",
    }[damage]
    assert damaged != whole
    file.write_bytes(damaged)
    assert same(rendered(config), plain)
    assert file.read_bytes() == whole


def test_notes_on_long_rows_name_the_file_of_the_day(config: RunConfig, cache: Path) -> None:
    old = Path(str(config.data.train))
    new = old.with_name("other.jsonl")
    new.write_bytes(old.read_bytes())
    rendered(config)
    moved = rendered(config.model_copy(update={"data": config.data.model_copy(update={"train": str(new)})}))
    assert [note.place for note in moved.touched] == [f"{new}:2"]


def test_rows_with_a_mistake_are_named_each_time(config: RunConfig, cache: Path) -> None:
    strict = config.model_copy(update={"data": config.data.model_copy(update={"on_overlength": "error"})})
    for _ in range(2):
        with pytest.raises(DataError, match=r"rows.jsonl:2: LENGTH"):
            rendered(strict)
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_done_without(config: RunConfig, cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    assert same(rendered(config), rendered(config))


def test_processes_at_once_and_what_a_kill_left_do_no_harm(config: RunConfig, cache: Path) -> None:
    plain = rendered(config)
    (file,) = cache.iterdir()
    file.unlink()
    torn = cache / f".{file.name}.abcd.tmp"
    torn.write_bytes(b"torn")
    os.utime(torn, (1, 1))
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=rendered, args=(config,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert list(cache.iterdir()) == [file]
    assert same(rendered(config), plain)


def test_files_that_are_not_the_cache_s_own_stay(config: RunConfig, cache: Path) -> None:
    cache.mkdir(parents=True)
    for number in range(20):
        (cache / f"table-{number}.arrow").write_text("mine")
        (cache / f".{number}.tmp").write_text("mine")
        for name in (f"table-{number}.arrow", f".{number}.tmp"):
            os.utime(cache / name, (number, number))
    rendered(config)
    assert len(list(cache.iterdir())) == 41


def test_only_the_newest_are_kept(config: RunConfig, cache: Path) -> None:
    cache.mkdir(parents=True)
    for number in range(20):
        (cache / f"{number:032x}.arrow").write_text("old")
        os.utime(cache / f"{number:032x}.arrow", (number, number))
    rendered(config)
    assert len(list(cache.iterdir())) == token_cache.KEPT_FILES
