"""The documents of a run that was really trained are what its files say."""

from tests.commands import performed
from tests.documents import answered
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
