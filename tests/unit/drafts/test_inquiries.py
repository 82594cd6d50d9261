"""Answers of processes: kept while nothing changed, the older question of a draft killed, a crash in words."""

import errno
import sys
import time
from pathlib import Path

import pytest

from trainer.drafts import checks
from trainer.drafts.checks import Checks, Inquiry, ask

pytestmark = pytest.mark.apart

# Notes each start, then does as the request says.
PROGRAM = """
import json, os, sys, time
request = json.load(sys.stdin)
with open(request["log"], "a") as log:
    log.write(f"{os.getpid()} {request['verb']}\\n")
time.sleep(request.get("seconds", 0))
if "die" in request:
    sys.exit(request["die"])
print(json.dumps({"verb": request["verb"], "key": os.environ.get("OPENAI_API_KEY")}))
"""


@pytest.fixture
def log(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(checks, "PROGRAM", (sys.executable, "-c", PROGRAM))
    return tmp_path / "log"


def answered(found: Checks, question: Inquiry, slot: str = "draft") -> checks.Answer:
    end = time.monotonic() + 30
    while (answer := found.answer(slot, question)) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    return answer


def starts(log: Path) -> list[str]:
    return [line.split()[1] for line in log.read_text().splitlines()] if log.exists() else []


def test_an_answer_is_kept_until_a_file_or_the_config_changes(log, tmp_path):
    rows, config, found = tmp_path / "rows", tmp_path / "draft.yaml", Checks()
    rows.write_text("1")
    question = Inquiry({"verb": "look", "log": str(log), "config": str(config)}, (rows,))
    answered(found, question)
    answered(found, question)
    assert len(starts(log)) == 1
    rows.write_text("22")
    answered(found, question)
    config.write_text("model:\n")
    answered(found, question)
    assert len(starts(log)) == 3
    found.forget(question)
    answered(found, question)
    assert len(starts(log)) == 4


def test_a_newer_question_kills_the_older_one_of_its_draft_and_of_no_other(log):
    found = Checks()
    slow = Inquiry({"verb": "split", "log": str(log), "seconds": 60})
    other = Inquiry({"verb": "look", "log": str(log), "seconds": 0.5, "id": 2})
    assert found.answer("draft", slow) is None
    assert found.answer("another", other) is None
    while len(starts(log)) < 2:
        time.sleep(0.01)
    pid = next(line.split()[0] for line in log.read_text().splitlines() if line.endswith("split"))
    began = time.monotonic()
    answered(found, Inquiry({"verb": "look", "log": str(log), "id": 3}))
    assert time.monotonic() - began < 20
    assert not Path(f"/proc/{pid}").exists()
    assert answered(found, other, "another")["verb"] == "look"
    found.end()


def test_checks_that_load_a_model_wait_for_one_another(log):
    found = Checks()
    first, second = (Inquiry({"verb": "check", "log": str(log), "seconds": 1, "id": number}) for number in (1, 2))
    assert found.answer("a", first) is None
    assert found.answer("b", second) is None
    time.sleep(0.7)
    assert len(starts(log)) == 1
    answered(found, first, "a")
    answered(found, second, "b")


@pytest.mark.parametrize(("code", "said"), [(3, "it ended without a word"), (-9, "was killed")])
def test_a_crash_is_told_in_words(log, code, said, monkeypatch):
    if code < 0:
        monkeypatch.setattr(checks, "PROGRAM", (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    answer = ask(Inquiry({"verb": "look", "log": str(log), "die": 3}))
    assert answer["kind"] == checks.CRASH
    assert said in answer["problems"][0]


def test_a_process_that_cannot_be_begun_is_told_in_words(log, monkeypatch):
    def full(question):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(checks, "_started", full)
    answer = answered(Checks(), Inquiry({"verb": "look", "log": str(log)}))
    assert answer["problems"][0].startswith("its process: Cannot allocate memory; ")


def test_a_key_goes_to_the_process_of_its_service_alone(log, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-123")
    kinds = {kind: ask(Inquiry({"verb": "check", "log": str(log)}, kind=kind))["key"] for kind in ("local", "openai")}
    assert kinds == {"local": None, "openai": "sk-123"}
    assert ask(Inquiry({"verb": "look", "log": str(log)}, kind="openai"))["key"] is None
