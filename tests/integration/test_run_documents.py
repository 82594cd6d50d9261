"""The documents of a run that was really trained are what its files say."""

from pathlib import Path

from tests.commands import performed
from tests.documents import answered, document_of
from trainer.runs import Run
from trainer.runs.checkpoint import list_checkpoints


def test_a_finished_run(tuned: Run) -> None:
    root = str(tuned.path.parent)
    (listed,) = answered("runs", "--root", root)["runs"]
    assert (listed["name"], listed["state"], listed["step"], listed["total_steps"]) == ("tuned", "succeeded", 16, 16)
    last = tuned.results()[-1]
    shown = answered("show", "tuned", "--root", root)
    assert shown["run"] == listed
    assert (shown["last"]["step"], shown["last"]["valid_loss"]) == (16, last["valid_loss"])
    assert (shown["adapter"], shown["error"], shown["seconds_left"]) == (str(tuned.adapter), None, None)
    assert (shown["made_from"]["rows_trained"], shown["made_from"]["rows_held_out"]) == (20, 4)
    assert shown["settings"]["lora.r"] == 4
    assert shown["bills"] == []
    assert {file["path"] for file in shown["files"]} == {str(path) for path in tuned.path.iterdir()}


def test_its_checkpoints_and_events(tuned: Run) -> None:
    kept = answered("checkpoints", str(tuned.path))["checkpoints"]
    assert [one["path"] for one in kept] == [str(one.path) for one in list_checkpoints(tuned.checkpoints)]
    assert [one["step"] for one in kept if one["is_adapter"]] == [tuned.status()["adapter_step"]]
    assert all(one["is_complete"] and one["problem"] is None for one in kept)
    events = answered("logs", str(tuned.path))["events"]
    assert [event["message"] for event in events] == [event["message"] for event in tuned.events()]
    assert answered("logs", str(tuned.path), "--tail", "1")["events"] == events[-1:]


def test_following_is_for_people(tuned: Run) -> None:
    done = performed(("logs", str(tuned.path), "--follow", "--format", "json"), lambda: 0.0)
    assert (done.code, done.out) == (2, "")
    assert done.errors == [
        "error: --format json: is given with --follow, expected one of them; ask from time to time with: "
        f"trainer show {tuned.path} --format json"
    ]


def test_a_check_of_this_machine(tmp_path: Path) -> None:
    words = ("train", "--config", "configs/tiny.yaml", "--check", "--root", str(tmp_path / "runs"), "--format", "json")
    found = document_of(performed(words, lambda: 0.0), expected="train --check")
    plan = found["plan"]
    assert (found["backend"], found["quote"], plan["rows_trained"], plan["rows_held_out"]) == ("local", None, 120, 20)
    assert plan["total_steps"] == plan["n_epochs"] * plan["steps_per_epoch"]
    assert 0 < plan["num_supervised_tokens"] < plan["num_tokens"]
    assert not (tmp_path / "runs").exists()
    wrong = performed((*words, "training.n_epoch=1"), lambda: 0.0)
    assert (wrong.code, wrong.out) == (2, "")
    assert "training.n_epoch: unknown field, did you mean n_epochs?" in wrong.err
    for_people = performed((*words, "--preview", "1"), lambda: 0.0)
    assert (for_people.code, for_people.out) == (2, "")
