"""A draft on its way: what it lacks, what is wrong with it, its files, and the one run that it becomes."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.studio import make_run
from tests.waiting import until
from trainer.dashboard import new_run
from trainer.drafts import submit
from trainer.drafts.forms import kind_of
from trainer.drafts.preparation import Outlook, Preparation, file_name
from trainer.drafts.speed import expected_seconds
from trainer.drafts.store import Draft
from trainer.drafts.submit import start_run
from trainer.errors import ConfigError
from trainer.runs import Run, list_runs
from trainer.runs.lock import locked
from trainer.runs.queue import Queue
from trainer.start.sample import FILES, sample_rows

ID = "0123456789ab"


@pytest.fixture
def preparation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        Path(name).write_bytes(sample_rows(name))
    made = Preparation(Path("runs"), [Path()])
    yield made
    made.checks.end()


def settled(preparation: Preparation, draft_id: str = ID, seconds: float = 90) -> Outlook:
    until(lambda: not preparation.outlook(draft_id).is_pending, "the draft is checked", seconds)
    return preparation.outlook(draft_id)


def test_an_empty_draft_lacks_a_base_and_data_and_has_no_mistakes(preparation):
    outlook = preparation.outlook(ID)
    assert outlook.needs == ["a base model", "training data"]
    assert (outlook.problems, outlook.is_pending, outlook.is_ready) == ({}, False, False)
    assert not Path("runs").exists(), "looking makes nothing"


def test_a_mistake_stands_at_its_field_and_the_text_stays(preparation):
    preparation.set(ID, {"model.base": "builtin:tiny", "training.n_epochs": "three"})
    outlook = preparation.outlook(ID)
    assert outlook.problems == {"training.n_epochs": ["is 'three', expected a whole number or 'auto'"]}
    assert outlook.needs == ["training data"]
    assert outlook.draft.texts["training.n_epochs"] == "three"


@pytest.mark.parametrize("name", ["data.train", "data.validation", "model.base", "model.chat_template"])
def test_a_path_outside_of_the_roots_is_refused_and_never_read(preparation, name):
    preparation.set(ID, {"model.base": "builtin:tiny", "data.train": "rows.jsonl"} | {name: "/etc/passwd"})
    outlook = preparation.outlook(ID)
    assert "is outside of the folders that this page may read" in outlook.problems[name][0]
    assert "findings" not in (outlook.rows or {})
    assert not (name.startswith("data") and outlook.is_pending)
    if name == "data.train":
        for act in (preparation.files.hold_out, lambda draft: preparation.files.clean_copy(draft, "train", 0)):
            with pytest.raises(ConfigError, match="may not be read"):
                act(ID)


@pytest.mark.parametrize("name", ["data.train", "model.base"])
def test_the_home_of_nobody_is_a_mistake_at_its_field(preparation, name):
    preparation.set(ID, {"model.base": "builtin:tiny", "data.train": "rows.jsonl"} | {name: "~no-such-user/x"})
    assert "'~no-such-user/x' is outside of the folders" in preparation.outlook(ID).problems[name][0]


def test_choosing_a_base_brings_what_init_proposes_and_keeps_what_was_typed(preparation):
    preparation.set(ID, {"training.batch_size": "4"})
    preparation.set_base(ID, "builtin:tiny")
    texts = preparation.drafts.read(ID).texts
    assert (texts["training.n_epochs"], texts["training.learning_rate"], texts["training.batch_size"]) == (
        "60",
        "5e-3",
        "4",
    )
    preparation.set_base(ID, "Qwen/Qwen2.5-7B-Instruct", "nf4")
    texts = preparation.drafts.read(ID).texts
    assert (texts["training.n_epochs"], texts["training.learning_rate"], texts["model.quantization"]) == ("", "", "nf4")
    assert texts["training.batch_size"] == "4"


def test_files_are_added_once_weighted_and_removed(preparation):
    for path in ("a.jsonl", "b.jsonl", "a.jsonl"):
        preparation.files.add(ID, "train", path)
    preparation.files.set_weight(ID, 1, "2")
    assert preparation.drafts.read(ID).texts["data.train"].splitlines() == ["a.jsonl", "{path: b.jsonl, weight: 2.0}"]
    assert [(file.path, file.weight) for file in preparation.outlook(ID).chosen["train"]] == [
        ("a.jsonl", ""),
        ("b.jsonl", "2.0"),
    ]
    preparation.files.set_weight(ID, 1, "much")
    assert "data.train.1.weight: is 'much', expected a number" in preparation.outlook(ID).problems["data.train"]
    preparation.files.set_weight(ID, 1, "1")
    preparation.files.remove(ID, "train", 0)
    assert preparation.drafts.read(ID).texts["data.train"] == "b.jsonl"
    with pytest.raises(ConfigError, match="there is no file 8"):
        preparation.files.clean_copy(ID, "train", 7)


@pytest.mark.apart
def test_a_file_with_a_broken_row_is_cleaned_and_held_out_of_and_stays_itself(preparation):
    before = sample_rows(FILES[0]) + b"{broken\n"
    Path("own.jsonl").write_bytes(before)
    preparation.files.add(ID, "train", "own.jsonl")
    outlook = settled(preparation)
    assert (outlook.num_rows, outlook.row_errors) == (121, 1)
    preparation.files.use_clean_copy(ID, "train", 0)
    preparation.files.hold_out(ID)
    outlook = settled(preparation)
    assert [file.name for role in ("train", "validation") for file in outlook.chosen[role]] == [
        "own.clean.train.jsonl", "own.clean.validation.jsonl",
    ]  # fmt: skip
    assert (outlook.num_rows, outlook.rows["validation_rows"], outlook.row_errors) == (108, 12, 0)
    assert Path("own.jsonl").read_bytes() == before


def test_the_sample_is_a_draft_that_lacks_nothing(preparation):
    outlook = preparation.outlook(preparation.try_sample())
    assert (outlook.needs, outlook.problems) == ([], {})
    assert [file.name for file in outlook.chosen["train"]] == [FILES[0]]
    assert outlook.command == "train --config glossary.yaml"
    assert outlook.config.startswith("model:\n  base: builtin:tiny\n")


def test_names_of_files_and_backends_are_never_those_that_were_typed_wrong():
    assert file_name(Draft(ID, {"run.name": "../../x y"})) == "x-y.yaml"
    assert file_name(Draft(ID)) == "new-run.yaml"
    assert [kind_of({"backend.kind": text}) for text in ("openai", "elsewhere", "")] == ["openai", "local", "local"]


@pytest.mark.slow
def test_two_submits_of_a_draft_make_one_run_and_the_plan_has_every_number(preparation):
    draft_id = preparation.try_sample()
    preparation.set(draft_id, {"training.n_epochs": "1", "evaluation.enabled": "false"})
    outlook = settled(preparation, draft_id)
    assert outlook.is_ready, outlook.problems
    assert outlook.resolved["training.seed"] == "42"
    assert outlook.plan["numbers"]["total_steps"] == 15
    assert outlook.seconds is None
    names: list[str] = []
    submits = [threading.Thread(target=lambda: names.append(start_run(preparation, draft_id, ""))) for _ in range(2)]
    for thread in submits:
        thread.start()
    for thread in submits:
        thread.join()
    assert len(set(names)) == 1
    assert len(names) == 2
    (run,) = list_runs(Path("runs"))
    assert run.name == names[0]
    assert start_run(preparation, draft_id, "") == run.name
    record = Path("runs/.ui/drafts") / f"{draft_id}.json"
    record.write_text(record.read_text().replace(f'"run": "{run.name}"', '"run": null'))  # killed before it was noted
    assert start_run(preparation, draft_id, "") == run.name
    until(lambda: run.state == "succeeded", "the run is done", 90)
    assert len(list_runs(Path("runs"))) == 1
    assert preparation.outlook(draft_id).seconds is not None


@pytest.mark.parametrize("form", [{}, {"confirm": "yes"}])
def test_the_agreement_goes_with_the_start_also_where_the_plan_is_no_longer_known(preparation, monkeypatch, form):
    draft_id, asked = preparation.try_sample(), []

    def answer(inquiry):
        asked.append((inquiry.request["agreed"], inquiry.request["confirmed"]))
        raise ConfigError("that is all")

    monkeypatch.setattr(submit, "ask", answer)
    monkeypatch.setattr(new_run, "preparation_of", lambda request: preparation)
    monkeypatch.setattr(new_run, "free_device", lambda request, kind: None)
    preparation.drafts.set(draft_id, {}, name="own")
    with pytest.raises(ConfigError, match="that is all"):
        new_run._start(SimpleNamespace(), draft_id, "digest", form)
    assert asked == [("digest", bool(form))]


def test_a_run_that_an_earlier_attempt_made_waits_for_others_and_not_for_itself(preparation, monkeypatch):
    draft_id, asked = preparation.try_sample(), []

    def answer(inquiry):
        asked.append((inquiry.request["again"], inquiry.request["waits"]))
        raise ConfigError("the queue could not be changed")

    monkeypatch.setattr(submit, "ask", answer)
    preparation.drafts.set(draft_id, {}, name="own")
    make_run(Path("runs"), "own", state="validating_files")
    for number in range(2):
        with pytest.raises(ConfigError, match="could not be changed"):
            start_run(preparation, draft_id, "")
        make_run(Path("runs"), f"busy-{number}", state="running")
    assert asked == [(True, False), (True, True)]


@pytest.mark.slow
def test_a_run_beside_another_one_waits_in_the_queue(preparation):
    draft_id, queue = preparation.try_sample(), Queue(Path("runs"))
    assert not preparation.outlook(draft_id).waits
    busy = Run(make_run(Path("runs"), "busy"))
    with locked(busy.path, print):
        busy.set_status("running")
        outlook = settled(preparation, draft_id)
        assert (outlook.waits, outlook.is_ready) == (True, True)
        name = start_run(preparation, draft_id, "")
        (entry,) = queue.entries()
        assert (entry.run, entry.waits) == (name, True)
        queue.remove(name)
        record = Path("runs/.ui/drafts") / f"{draft_id}.json"
        record.write_text(record.read_text().replace(f'"run": "{name}"', '"run": null'))  # as killed before it waited
        assert start_run(preparation, draft_id, "") == name
        assert [entry.run for entry in queue.entries()] == [name]
        queue.remove(name)
    until(lambda: queue.worker() is None, "the worker has ended", 30)


def test_another_backend_brings_its_proposals_where_nobody_has_typed(preparation):
    names = ("training.n_epochs", "training.learning_rate", "training.batch_size")
    preparation.set_base(ID, "builtin:tiny")
    preparation.set(ID, {"training.batch_size": "5"})
    texts = preparation.set(ID, {"backend.kind": "openai"}).texts
    assert [texts[name] for name in names] == ["3", "", "5"]
    texts = preparation.set(ID, {"backend.kind": "local"}).texts
    assert [texts[name] for name in names] == ["60", "5e-3", "5"]


def test_a_draft_that_became_a_run_leads_to_it_and_to_another_one_like_it(preparation):
    preparation.set(ID, {"model.base": "builtin:tiny", "run.name": "one", "training.seed": "3"})
    preparation.drafts.set(ID, {}, name="one", run="one")
    assert preparation.outlook(ID).run is None, "it was deleted"
    make_run(Path("runs"), "one")
    assert preparation.outlook(ID).run == "one"
    texts = preparation.drafts.read(preparation.copy(ID)).texts
    assert texts == {"model.base": "builtin:tiny", "training.seed": "3"}


def test_the_time_is_that_of_earlier_runs_of_the_base_and_never_a_guess(preparation):
    plan = {"numbers": {"base": "builtin:tiny", "num_tokens": 1000, "n_epochs": 3}}
    for name, base, speed in (("one", "builtin:tiny", 100), ("two", "builtin:tiny", 300), ("other", "elsewhere", 1)):
        folder = make_run(Path("runs"), name, base=base)
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "tokens_per_second": speed}) + "\n{torn")
    assert expected_seconds(Path("runs"), plan) == 15
    assert expected_seconds(Path("runs"), {"numbers": plan["numbers"] | {"base": "unseen"}}) is None
    assert expected_seconds(Path("runs"), {"numbers": None}) is None
