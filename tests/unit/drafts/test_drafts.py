"""Drafts are files: what was typed is there after a reload, in another tab, and for another server."""

import pytest

from trainer.config.load import load_config
from trainer.drafts.store import Drafts
from trainer.errors import ConfigError

ID = "0123456789ab"


def test_what_was_typed_right_or_wrong_is_read_back_by_another_server(tmp_path):
    typed = {"training.n_epochs": "three\r\n", "model.base": "<script>", "data.train": "a\nb", "no.such": "x"}
    Drafts(tmp_path).set(ID, typed)
    read = Drafts(tmp_path).read(ID)
    assert read.texts == {"training.n_epochs": "three\n", "model.base": "<script>", "data.train": "a\nb"}
    assert read.title == "<script>, a"


def test_two_tabs_keep_their_fields_and_the_last_word_counts(tmp_path):
    drafts = Drafts(tmp_path)
    drafts.set(ID, {"training.n_epochs": "3", "lora.r": "8"})
    drafts.set(ID, {"lora.r": "16"})
    drafts.set(ID, {"training.seed": "1"}, name="run-1")
    drafts.set(ID, {})
    read = drafts.read(ID)
    assert read.texts == {"training.n_epochs": "3", "lora.r": "16", "training.seed": "1"}
    assert (read.name, read.run) == ("run-1", None)


def test_the_config_beside_a_draft_is_the_one_that_it_asks_for(tmp_path):
    drafts = Drafts(tmp_path)
    drafts.set(ID, {"model.base": "builtin:tiny", "data.train": "a.jsonl", "training.n_epochs": "4"})
    assert load_config(drafts.config(ID)).training.n_epochs == 4


def test_unfinished_drafts_are_those_that_hold_something_and_became_no_run(tmp_path):
    drafts = Drafts(tmp_path)
    drafts.set("a" * 12, {"backend.kind": "local"})
    drafts.set("b" * 12, {"model.base": "x"})
    drafts.set("c" * 12, {"model.base": "y"}, run="done")
    assert [draft.id for draft in drafts.unfinished()] == ["b" * 12]
    drafts.delete("b" * 12)
    assert drafts.unfinished() == []
    assert drafts.read("b" * 12).texts == {}


@pytest.mark.parametrize("name", ["../../x", "", "A" * 12, "0" * 13])
def test_an_id_never_becomes_a_path(tmp_path, name):
    with pytest.raises(ConfigError, match="is no draft"):
        Drafts(tmp_path).set(name, {"model.base": "x"})
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_draft_reads_as_an_empty_one(tmp_path):
    drafts = Drafts(tmp_path)
    drafts.set(ID, {"model.base": "x"})
    (tmp_path / f"{ID}.json").write_text('{"texts": 3')
    assert drafts.read(ID).texts == {}
