"""One damaged run keeps nobody from seeing the others, and nothing of a file reaches the terminal as a command."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Done, performed
from tests.documents import answered
from tests.manifests import manifest
from trainer.config.schema import RunConfig
from trainer.runs import Run, create_run
from trainer.runs.ledger import Ledger, Thing
from trainer.runs.manifest import PinnedBase

EVIL = "\x1b]0;owned\x07\x1b[2J[red]x[/nope]"
ODD = ["[]", "7", "null", '"text"', "{", "[" * 100_000, "\x00\xff", json.dumps([{"a": 1}])]


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Run, Run]:
    found = []
    for name in ("broken", "sound"):
        values = {
            "model": {"base": "builtin:tiny"},
            "data": {"train": "a.jsonl"},
            "run": {"name": name, "root": str(tmp_path)},
        }
        run = create_run(RunConfig.model_validate(values))
        run.event("begun")
        run.append_result({"step": 1, "train_loss": 1.25})
        run.append_metrics({"step": 1, "num_tokens": 10, "tokens_per_second": 5.0})
        run.set_status("succeeded", total_steps=2)
        found.append(run)
    return found[0], found[1]


def trainer(*words: str) -> Done:
    done = performed(words, lambda: 0.0)
    assert "Traceback" not in done.err, done.err
    assert "\x1b" not in done.out + done.err
    return done


def shown(broken: Run, told: str | None = None) -> None:
    root = str(broken.path.parent)
    listed = trainer("runs", "--root", root)
    assert listed.code == 0
    (line,) = [line for line in listed.out.splitlines() if line.startswith("sound")]
    assert "1.2500" in line
    if told is not None:
        assert told in next(line for line in listed.out.splitlines() if line.startswith("broken"))
    assert trainer("logs", str(broken.path)).code == 0
    assert trainer("logs", str(broken.path), "--tail", "3").code == 0
    assert trainer("show", str(broken.path)).code == 0
    assert trainer("checkpoints", str(broken.path)).code == 0
    in_json = answered("runs", "--root", root)["runs"]
    assert [(one["name"], one["train_loss"]) for one in in_json if one["name"] == "sound"] == [("sound", 1.25)]
    if told is not None:
        (damaged,) = [one["damaged"] for one in in_json if one["name"] == "broken"]
        assert f"damaged: {', '.join(damaged)}".startswith(told)
    for words in (("logs",), ("logs", "--tail", "3"), ("show",), ("checkpoints",)):
        answered(*words, str(broken.path))


@pytest.mark.parametrize("content", ODD)
@pytest.mark.parametrize("name", ["status.json", "manifest.json", "report/report.json"])
@pytest.mark.apart
def test_a_damaged_record_is_named(runs: tuple[Run, Run], name: str, content: str) -> None:
    path = runs[0].path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode("latin-1"))
    shown(runs[0], f"damaged: {name}")


STATUSES = [
    {"state": ["running"]}, {"state": {}}, {"pid": "one", "state": "running"}, {"state": "done"}, {"state": None},
    {"state": "succeeded", "total_steps": {}, "created_at": 7, "summary": [1], "error": {"a": EVIL}},
]  # fmt: skip


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.apart
def test_a_status_of_other_values_is_survived(runs: tuple[Run, Run], status: dict[str, object]) -> None:
    (runs[0].path / "status.json").write_text(json.dumps(status))
    shown(runs[0])


@pytest.mark.parametrize(
    "detail", [{"backend": [1]}, {"backend": "abacus"}, {"total_steps": [1]}, {"step": True}, {"created_at": 7}]
)
@pytest.mark.apart
def test_a_damaged_detail_of_a_status_is_named_and_read_as_absent(
    runs: tuple[Run, Run], detail: dict[str, Any]
) -> None:
    path = runs[0].path / "status.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | detail))
    shown(runs[0], "damaged: status.json")
    assert not detail.keys() & runs[0].status().keys()
    assert (runs[0].state, runs[0].backend) == ("succeeded", "local")


@pytest.mark.parametrize("line", ["x,y", "1,abc", "1,2,3,4,5,6,7,8,9", "\x00", ",,,", "step,train_loss", "1,nan"])
@pytest.mark.apart
def test_a_damaged_cell_is_survived(runs: tuple[Run, Run], line: str) -> None:
    with (runs[0].path / "results.csv").open("a") as file:
        file.write(line + "\n")
    shown(runs[0])
    assert runs[0].results()[0] == {"step": 1.0, "train_loss": 1.25}


def test_a_damaged_cell_is_named(runs: tuple[Run, Run]) -> None:
    with (runs[0].path / "results.csv").open("a") as file:
        file.write("2,abc\n")
    shown(runs[0], "damaged: results.csv")


def test_a_damaged_ledger_is_named_and_stops_no_work_on_other_runs(runs: tuple[Run, Run]) -> None:
    root = str(runs[0].path.parent)
    (runs[0].path / "ledger.jsonl").write_text('{"step": "exists", "thing": {"kind": "job"}}\n')
    bills = Thing("openai", "job", "token", "https://example.test", bills="much", delete_with="trainer cancel sound")
    Ledger(runs[1].path).write(bills, "refused")
    shown(runs[0], "damaged: ledger.jsonl")
    for words in (("endpoints",), ("teardown", "--all", "--yes"), ("delete", "broken", "--yes")):
        done = trainer(*words, "--root", root)
        assert done.code == 2
        assert "ledger.jsonl:1: is " in done.err
        assert "unexpected" not in done.err
    assert answered("endpoints", "--root", root, code=2)["damaged"] == ["broken"]
    assert runs[0].path.is_dir()
    Ledger(runs[1].path).write(bills, "exists")
    assert answered("show", "sound", "--root", root)["bills"][0]["delete_with"] == "trainer cancel sound"
    assert answered("show", "broken", "--root", root)["bills"] is None


@pytest.mark.parametrize("content", ["model: [", "x: 1", "model: 7", "", "model: {base: [1]}"])
@pytest.mark.apart
def test_a_damaged_config_is_named(runs: tuple[Run, Run], content: str) -> None:
    (runs[0].path / "config.yaml").write_text(content)
    shown(runs[0], "damaged: config.yaml")


@pytest.mark.parametrize("event", [{}, {"level": [], "message": {}, "created_at": 5}, {"level": None, "data": 3}])
@pytest.mark.apart
def test_an_odd_event_is_survived(runs: tuple[Run, Run], event: dict[str, object]) -> None:
    with (runs[0].path / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")
    shown(runs[0])


def test_no_file_of_a_run_speaks_to_the_terminal(runs: tuple[Run, Run]) -> None:
    run = runs[0]
    run.event(EVIL, level=EVIL)  # type: ignore[arg-type]
    run.write_manifest(manifest(base=PinnedBase(EVIL, EVIL, None), fingerprint={EVIL: EVIL}, device=EVIL))
    run.set_status("failed", error=EVIL, summary=EVIL, total_steps=EVIL, created_at=EVIL)
    run.report.mkdir()
    (run.report / "report.json").write_text(json.dumps({"verdict": {"sentence": EVIL}}))
    (run.path / "config.yaml").write_text(f"model: {{base: {json.dumps(EVIL)}}}\n# \x1b[2J\n")
    shown(run)
