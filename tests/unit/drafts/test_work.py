"""Work of the page on data files, in this process; the program itself in one of its own."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainer.backends.contract import Plan
from trainer.backends.quote import Item, Quote
from trainer.config.schema import RunConfig
from trainer.drafts import work
from trainer.errors import ConfigError
from trainer.runs import create_run
from trainer.runs.queue import Queue

GOOD = {"messages": [{"role": "user", "content": "What is a hub?"}, {"role": "assistant", "content": "The middle."}]}


def rows(*values: object) -> str:
    Path("rows.jsonl").write_text(
        "".join(value if isinstance(value, str) else f"{json.dumps(value)}\n" for value in values)
    )
    return "rows.jsonl"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def many() -> list[dict[str, object]]:
    return [json.loads(json.dumps(GOOD).replace("hub", f"part {number}")) for number in range(40)]


def test_a_finding_comes_with_the_messages_of_its_row():
    bad = {"messages": [{"role": "user", "content": "<script>"}, {"role": "human", "content": None, "x": [1]}]}
    found = work.look({"train": [rows(*many(), bad, "{broken\n")], "validation": [], "backend": "local"})
    first, second = [finding for finding in found["findings"] if finding["severity"] == "error"][:2]
    assert (found["rows"], found["severities"]["error"]) == (
        42,
        len(found["findings"]) - found["severities"]["warning"],
    )
    assert first["line"] == 41
    assert first["row"]["messages"][0] == {"role": "user", "text": "<script>"}
    assert any(finding["row"] == {"messages": [], "text": "{broken"} for finding in found["findings"]), second


def test_a_file_of_mistakes_yields_the_first_of_them_and_all_their_number():
    found = work.look({"train": [rows(*(["[1]\n"] * 500))], "validation": [], "backend": "local"})
    assert len(found["findings"]) == work.MAX_FINDINGS
    assert found["severities"]["error"] >= 500
    json.dumps(found)


def test_a_clean_copy_holds_the_other_rows_byte_for_byte():
    made = work.clean({"file": rows(*many(), "{broken\n"), "rejected": "rejected.jsonl", "backend": "local"})
    assert (made["rows"], made["rejected"]) == (40, 1)
    assert Path(made["file"]).read_text() == Path("rows.jsonl").read_text().removesuffix("{broken\n")


def test_a_tenth_is_held_out():
    made = work.split({"file": rows(*many()), "train": "a.jsonl", "validation": "b.jsonl", "share": 0.1})
    assert made == {"train": 36, "validation": 4}


def test_a_table_becomes_chat_rows():
    Path("t.csv").write_text("question,answer\nWhat is a hub?,The middle.\nAnd a rim?,The outside.\n")
    made = work.convert({"file": "t.csv", "output": "t.chat.jsonl"})
    assert (made["layout"], made["rows"]) == ("a table", 2)
    assert json.loads(Path("t.chat.jsonl").read_text().splitlines()[0]) == GOOD


@pytest.mark.apart
def test_the_program_answers_with_json_alone_and_with_problems_instead_of_a_traceback():
    def answer(request: dict[str, object]) -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, "-m", "trainer.drafts.work"], input=json.dumps(request), capture_output=True, text=True
        )
        return json.loads(done.stdout)

    found = answer({"verb": "look", "train": ["no.jsonl"], "validation": [], "backend": "local"})
    assert found["kind"] == "DataError"
    assert "no.jsonl: the file does not exist" in found["problems"][0]
    config = Path("c.yaml")
    config.write_text("model: {base: builtin:tiny}\ndata: {train: no.jsonl}\nbackend: {kind: openai}\nlora: {r: 8}\n")
    found = answer({"verb": "check", "config": "c.yaml", "root": "runs"})
    assert any(problem.startswith("lora.r: is set") for problem in found["problems"])


class Priced:
    """A backend whose runs cost something, and which notes what it is asked to make."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def create(self, plan: Plan[None], may_exist: bool) -> SimpleNamespace:
        self.made.append("run")
        return SimpleNamespace(name="run")

    def launch(self, *_: object) -> None:
        self.made.append("job")

    def detach(self, *_: object) -> None:
        pass


def quoted(amount: float) -> Quote:
    return Quote([Item("tokens", amount)], "a list of today")


def test_a_run_starts_at_the_price_that_was_agreed_to_and_at_no_other(monkeypatch):
    backend = Priced()
    config = RunConfig.model_validate({"model": {"base": "m"}, "data": {"train": "a"}, "backend": {"kind": "openai"}})
    plan = Plan(config, quoted(2.0), [], None)
    monkeypatch.setattr(work, "_plan", lambda *_, **__: (backend, plan))
    request = {"config": "c.yaml", "root": "runs", "agreed": work.digest_of(quoted(2.0)), "confirmed": True}
    for agreed in ("", work.digest_of(quoted(1.0))):
        with pytest.raises(ConfigError, match="the price has changed"):
            work.start(request | {"agreed": agreed})
    for unconfirmed in (request | {"confirmed": False}, {key: request[key] for key in request if key != "confirmed"}):
        with pytest.raises(ConfigError, match="expected your agreement"):
            work.start(unconfirmed | {"again": True})
    assert backend.made == []
    assert work.start(request)["run"] == "run"
    assert backend.made == ["run", "job"]


def test_a_contradiction_that_nobody_has_settled_starts_nothing(monkeypatch):
    backend = Priced()
    config = RunConfig.model_validate({"model": {"base": "m"}, "data": {"train": "a"}})
    plan = Plan(config, quoted(2.0), [], None, doubts=["the table and the service disagree"])
    monkeypatch.setattr(work, "_plan", lambda *_, **__: (backend, plan))
    with pytest.raises(ConfigError, match="disagree"):
        work.start({"config": "c.yaml", "root": "runs", "agreed": work.digest_of(plan.quote)})
    assert backend.made == []


def test_a_run_of_that_name_with_other_settings_is_none_of_an_earlier_attempt():
    values = {"model": {"base": "builtin:tiny"}, "data": {"train": "a"}, "run": {"name": "one"}}
    config = RunConfig.model_validate(values)
    assert work._begun(config) is None
    run = create_run(config)
    assert work._begun(config) is None, "it was made, and has not begun"
    run.set_status("queued")
    assert work._begun(config) is None, "it was to wait, and is not in the queue"
    Queue(Path("runs")).add(run.name)
    begun = work._begun(config)
    assert begun is not None
    assert begun.name == "one"
    with pytest.raises(ConfigError, match="'one' exists in 'runs'"):
        work._begun(RunConfig.model_validate(values | {"training": {"seed": 1}}))
