"""What the ledger remembers of what was created elsewhere."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.errors import ConfigError
from trainer.runs.ledger import Ledger, Thing

JOB = Thing("openai", "job", "token-1", "https://example.test", "by the token", "trainer cancel x")
FILE = Thing("openai", "file", "train.jsonl", "https://example.test")


def test_the_last_step_counts_and_facts_add_up(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(FILE, "intended")
    ledger.write(JOB, "intended", size=3)
    ledger.write(FILE, "exists", id="file-1")
    ledger.write(JOB, "exists", id="job-1")
    ledger.write(FILE, "deleted")
    file, job = Ledger(tmp_path).entries()
    assert (file.step, dict(file.facts), file.is_open) == ("deleted", {"id": "file-1"}, False)
    assert (job.step, dict(job.facts)) == ("exists", {"size": 3, "id": "job-1"})
    assert job.created_at <= job.updated_at
    assert [entry.thing for entry in ledger.open()] == [JOB]


def test_only_what_exists_or_may_exist_and_costs_is_billing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(FILE, "exists")
    ledger.write(JOB, "intended")
    refused = replace(JOB, key="token-2")
    ledger.write(refused, "intended")
    ledger.write(refused, "refused", reason="no quota")
    assert [entry.thing.key for entry in ledger.billing()] == ["token-1"]


def test_a_thing_of_the_same_name_elsewhere_is_another_thing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(JOB, "exists")
    ledger.write(replace(JOB, place="https://other.test"), "deleted")
    assert [entry.step for entry in ledger.entries()] == ["exists", "deleted"]


def test_the_newest_of_a_kind_is_found_and_one_with_a_key(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(JOB, "exists")
    ledger.write(replace(JOB, key="token-2"), "intended")
    assert (newest := ledger.find("job")) is not None
    assert newest.thing.key == "token-2"
    assert (first := ledger.find("job", "token-1")) is not None
    assert first.step == "exists"
    assert ledger.find("endpoint") is None


def test_a_step_is_on_disk_before_anything_else_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (flushed.append(handle), real(handle))[1])
    Ledger(tmp_path).write(JOB, "intended")
    assert flushed


def test_a_line_that_a_crash_cut_short_does_not_hide_the_next(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(JOB, "intended")
    with ledger.path.open("a") as file:
        file.write('{"created_at": "2026')
    ledger.write(JOB, "exists", id="job-1")
    assert [(entry.step, entry.facts["id"]) for entry in ledger.entries()] == [("exists", "job-1")]


AT = '"2026-11-01T10:00:00.000+00:00"'
SOUND = f'{{"created_at": {AT}, "step": "exists", "thing": %s, "facts": {{}}}}'
THING = '{"backend": "openai", "kind": "job", "key": "k", "place": "p"}'
DAMAGED = [
    "xx", "[]", "null", "{}", '{"created_at": "t"}', SOUND % '{"kind": "job"}', SOUND % "[]", SOUND % f"{THING}}}{{",
    (SOUND % THING).replace("exists", "axists"),
    *((SOUND % THING).replace(AT, other) for other in ("7", '"t"', '"2026-11-01T10:00:00"')),
    (SOUND % THING).replace('"k"', "null"), (SOUND % THING).replace("{}", "[]"), (SOUND % THING).replace(",", ";", 1),
]  # fmt: skip


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_line_is_told_with_its_number(tmp_path: Path, line: str) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(JOB, "intended")
    with ledger.path.open("a") as file:
        file.write(f"{line}\n")
    ledger.write(JOB, "exists")
    with pytest.raises(ConfigError, match=r"ledger\.jsonl:2: is .*, expected a line that the trainer wrote; look at "):
        ledger.entries()


def test_a_line_that_a_crash_cut_short_announced_nothing_that_was_begun(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(JOB, "exists")
    whole = ledger.path.read_text()
    for length in range(len(whole) - 1):
        ledger.path.write_text(f"{whole[:length]}\n{whole}")
        assert [entry.step for entry in ledger.entries()] == ["exists"]
