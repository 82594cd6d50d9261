"""The documents of a run that was really trained are what its files say."""

from pathlib import Path

import pytest

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


def test_answers_and_an_export(tuned: Run, tmp_path: Path) -> None:
    asked = ("chat", str(tuned.path), "What is number 3?", "What is number 4?", "--max-tokens", "8")
    both = answered(*asked, "--compare")
    assert (both["run"], both["system"]) == ("tuned", "You count.")
    assert [one["question"] for one in both["answers"]] == ["What is number 3?", "What is number 4?"]
    assert all(isinstance(one[name], str) for one in both["answers"] for name in ("base", "tuned"))
    alone = answered(*asked)["answers"]
    assert [one["tuned"] for one in alone] == [one["tuned"] for one in both["answers"]]
    assert {one["base"] for one in alone} == {None}
    assert {one["tuned"] for one in answered(*asked, "--base")["answers"]} == {None}
    made = answered("export", str(tuned.path), "--output", str(tmp_path / "out"))
    assert (made["folder"], made["drift"]["num_same_choice"]) == (str(tmp_path / "out"), made["drift"]["num_tokens"])
    assert made["change"]["mean_kl"] > made["drift"]["mean_kl"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("--format", "json"),
            "--format json: is given without a question, expected one; a conversation is for people",
        ),
        (("Hi", "--base", "--compare"), "--base: is given with --compare, which answers with the base too, "),
    ],
    ids=["no question", "both"],
)
def test_a_chat_that_cannot_be_is_refused(tuned: Run, words: tuple[str, ...], told: str) -> None:
    done = performed(("chat", str(tuned.path), *words), lambda: 0.0)
    assert (done.code, done.out) == (2, "")
    assert done.errors[0].startswith(f"error: {told}")
