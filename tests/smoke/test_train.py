"""The main job with the real commands: data to answers, Ctrl-C, kill -9."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

from tests.conftest import REPOSITORY
from tests.serving import KEY, serving
from trainer.inference.evaluation.measures import is_right
from trainer.runs import Run

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent


def run_command(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / str(arguments[0])), *map(str, arguments[1:])]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def glossary(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The demo's run, half as long: `train --config configs/tiny.yaml`."""
    root = tmp_path_factory.mktemp("runs")
    changes = (f"run.root={root}", "run.name=glossary", "training.n_epochs=30")
    done = run_command("train", "--config", "configs/tiny.yaml", *changes)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"adapter  {root}/glossary/adapter\n"
    assert re.search(
        r"^better: \d+ of 20 answers right or nearly right \(95% CI \d+-\d+%\), base 0; beyond noise better on "
        r"\d+ of 20 rows, worse on \d; loss \d\.\d\d to 0\.\d\d$",
        done.stderr,
        re.MULTILINE,
    )
    assert "\n20 of 20 different answers were trained on, to other questions or the same in other words" in done.stderr
    assert f"report:     {root}/glossary/report/report.html" in done.stderr
    return Run(root / "glossary")


def qa(name: str) -> list[tuple[str, str]]:
    rows = [json.loads(line)["messages"] for line in (REPOSITORY / "data" / name).read_text().splitlines()]
    return [(row[1]["content"], row[2]["content"]) for row in rows]


def test_training_rows_are_learned_and_held_out_paraphrases_too(glossary: Run) -> None:
    results = glossary.results()
    assert results[0]["train_mean_token_accuracy"] < 0.3
    assert results[-1]["train_mean_token_accuracy"] > 0.9
    assert results[-1]["full_valid_mean_token_accuracy"] > 0.9


def test_the_tuned_model_answers_with_the_glossary_and_the_base_does_not(glossary: Run) -> None:
    questions = dict(qa("glossary_train.jsonl") + qa("glossary_validation.jsonl"))
    asked = (REPOSITORY / "data" / "questions.txt").read_text().splitlines()
    tuned = run_command("trainer", "chat", glossary.path, "--questions", "data/questions.txt").stdout.splitlines()
    base = run_command("trainer", "chat", glossary.path, "--base", *asked).stdout.splitlines()
    expected = [questions[question] for question in asked]
    assert tuned[:3] == expected[:3]  # rows of the training file
    assert sum(answer == right for answer, right in zip(tuned[3:], expected[3:], strict=True)) >= 1  # paraphrases
    assert not set(base) & set(expected)


def test_answers_stand_side_by_side(glossary: Run) -> None:
    shown = run_command("trainer", "chat", glossary.path, "--compare", "Define gear hanger for a beginner.").stdout
    assert shown.split("\n")[1].split() == ["question", "base", "tuned"]
    assert "Designed to bend" in shown


def test_a_conversation_streams_and_remembers_until_reset(glossary: Run, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    child = pexpect.spawn(
        str(BIN / "trainer"), ["chat", str(glossary.path)], cwd=REPOSITORY, encoding="utf-8", timeout=60
    )
    child.expect("system: You are Spokewise")
    child.expect("> ")
    child.sendline("Can you explain the term rotor?")
    child.expect("Disc brakes squeeze the rotor, a thin steel plate that spins with the wheel.")
    child.expect("> ")
    child.sendline("/reset")
    child.expect("forgotten")
    child.sendline("/base")
    child.expect("both answer")
    child.sendline("Define gear hanger for a beginner.")
    child.expect("builtin:tiny")
    child.expect("Designed to bend")
    child.sendline(f"/save {rows}")
    child.expect("saved to")
    child.sendline("/quit")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "0 errors" in run_command("trainer", "data", "check", rows).stdout
    assert json.loads(rows.read_text())["messages"][-1]["content"].startswith("Designed to bend")


def test_the_guides_example_gets_the_right_answer(glossary: Run, capsys: pytest.CaptureFixture[str]) -> None:
    guide = (REPOSITORY / "docs" / "guide.md").read_text()
    (example,) = re.findall(r"```python\n(from openai import OpenAI.*?)```", guide, flags=re.DOTALL)
    with serving(glossary) as server:
        for written, now in (
            ("127.0.0.1:8000", f"127.0.0.1:{server.port}"),
            ('"KEY"', repr(KEY)),
            ('"first"', '"glossary"'),
        ):
            assert example.count(written) == 1
            example = example.replace(written, now)
        exec(compile(example, "guide.md", "exec"), {})  # what a reader pastes
        assert not [line for line in server.said if line.startswith("a request has ")]
    question = re.findall(r'"role": "user", "content": "(.*?)"', example)[0]
    assert is_right(capsys.readouterr().out, dict(qa("glossary_train.jsonl"))[question])


def test_commands_that_look_at_a_run(glossary: Run) -> None:
    root = ("--root", glossary.path.parent)
    assert "succeeded" in run_command("trainer", "runs", *root).stdout
    shown = run_command("trainer", "show", "glossary", *root).stdout
    for part in (
        "loss by step",
        "token accuracy by step",
        f"{'training.learning_rate':<33}  0.005",
        "120 trained, 20 held out",
        "adapter",
        f"{glossary.comparison()['verdict']['sentence']}  {glossary.report / 'report.html'}",
    ):
        assert part in shown
    log = run_command("trainer", "logs", "glossary", *root).stdout
    assert "checkpoint at step 450" in log
    listed = run_command("trainer", "checkpoints", "glossary", *root).stdout
    assert "the adapter" in listed


def test_preview_marks_answers_and_end_markers() -> None:
    shown = run_command(
        "trainer", "data", "preview", "data/starter.jsonl", "--config", "configs/tiny.yaml", "--rows", "2"
    )
    first = json.loads((REPOSITORY / "data" / "starter.jsonl").read_text().splitlines()[0])
    assert f"⟦{first['messages'][-1]['content']}<|im_end|>⟧" in shown.stdout
    assert shown.stdout.count("⟦") == 2
    assert shown.returncode == 0


def test_check_trains_nothing(tmp_path: Path) -> None:
    done = run_command("train", "--config", "configs/tiny.yaml", "--check", f"run.root={tmp_path / 'runs'}")
    assert (done.returncode, done.stdout) == (0, "ready to train: config, data, tokens and memory are in order\n")
    assert not (tmp_path / "runs").exists()


def short_run(root: Path) -> list[str]:
    return [
        "--config",
        "configs/tiny.yaml",
        f"run.root={root}",
        "run.name=short",
        "training.save_steps=5",
        "training.n_epochs=8",
        "evaluation.enabled=false",
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    root = tmp_path_factory.mktemp("uninterrupted")
    assert run_command("train", *short_run(root)).returncode == 0
    return (root / "short" / "adapter" / "adapter_model.safetensors").read_bytes()


def wait_for_checkpoint(run: Run) -> None:
    deadline = time.monotonic() + 120
    while not any(run.checkpoints.glob("*/MANIFEST.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ctrl_c_in_a_terminal_pauses_and_resume_ends_in_the_same_adapter(tmp_path: Path, uninterrupted: bytes) -> None:
    child = pexpect.spawn(
        str(BIN / "train"), short_run(tmp_path), cwd=REPOSITORY, encoding="utf-8", codec_errors="replace", timeout=120
    )
    run = Run(tmp_path / "short")
    wait_for_checkpoint(run)
    child.sendintr()
    child.expect("interrupted; resume with: train --resume")
    child.expect(pexpect.EOF)
    child.close()
    assert (child.exitstatus, run.state, "stopped_by" in run.status()) == (130, "paused", False)
    assert run_command("train", "--resume", run.path).returncode == 0
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == uninterrupted


def killed_run(tmp_path: Path) -> Run:
    process = subprocess.Popen([BIN / "train", *short_run(tmp_path)], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    run = Run(tmp_path / "short")
    wait_for_checkpoint(run)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return run


def test_kill_9_is_survived_with_the_same_adapter(tmp_path: Path, uninterrupted: bytes) -> None:
    run = killed_run(tmp_path)
    assert run.state == "paused"
    done = run_command("train", "--resume", run.name, "--root", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == uninterrupted


def test_waiting_runs_survive_kill_9_of_their_worker_and_of_the_run_it_has_started(
    tmp_path: Path, uninterrupted: bytes
) -> None:
    run, second, root = Run(tmp_path / "short"), Run(tmp_path / "second"), ("--root", tmp_path)
    queued = run_command("train", *short_run(tmp_path), "--queue")
    assert (queued.returncode, "short waits in the queue, place 1; see all: trainer queue" in queued.stderr) == (
        0,
        True,
    )
    assert (
        run_command("train", *short_run(tmp_path), "run.name=second", "training.n_epochs=1", "--queue").returncode == 0
    )
    wait_for_checkpoint(run)
    listed = json.loads(run_command("trainer", "queue", *root, "--format", "json").stdout)
    assert [(entry["run"], entry["state"]) for entry in listed["entries"]] == [
        ("short", "started"),
        ("second", "waiting"),
    ]
    os.kill(listed["worker_pid"], signal.SIGKILL)
    os.kill(run.status()["pid"], signal.SIGKILL)
    wait_for(run, "paused")
    assert "is gone; it is resumed when its turn comes; no worker" in run_command("trainer", "show", run.path).stdout
    follower = subprocess.Popen([BIN / "trainer", "logs", second.path, "--follow"], stderr=subprocess.PIPE, text=True)
    worked = run_command("trainer", "queue", "work", *root)
    assert (worked.returncode, worked.stderr.splitlines()) == (
        0,
        ["short: its process is gone; it is resumed", "short: started", "short: succeeded", "second: started",
         "second: succeeded"],
    )  # fmt: skip
    _, said = follower.communicate(timeout=60)
    assert (follower.returncode, "waits in the queue, place" in said) == (0, True)
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == uninterrupted
    assert sum(event["type"] == "resumed" for event in run.events()) == 1
    assert second.state == "succeeded"


def test_two_settings_are_tried_and_the_better_one_is_named(tmp_path: Path) -> None:
    words = ("training.n_epochs=20", "training.learning_rate=1e-5,5e-3", "--root", tmp_path, "--follow")
    done = run_command("trainer", "sweep", "configs/tiny.yaml", *words)
    assert done.returncode == 0, done.stderr
    worse, better = (f"tiny-glossary-learning_rate-{rate}" for rate in ("1e-5", "5e-3"))
    assert [Run(tmp_path / name).state for name in (worse, better)] == ["succeeded", "succeeded"]
    assert f"best  {better}; try it: trainer chat {tmp_path / better}" in done.stderr
    assert f"{better} is better than {worse}: " in done.stdout
    compared = run_command("trainer", "compare", worse, better, "--root", tmp_path)
    assert (compared.returncode, compared.stdout) == (0, done.stdout)
    words = ("sweep", "configs/tiny.yaml", *words, "--format", "json")
    again = json.loads(run_command("trainer", *words).stdout)
    assert (again["num_enqueued"], again["best"]) == (0, better)
    assert again["sentence"].startswith(f"{better} is better than {worse}: ")


def wait_for(run: Run, *states: str) -> None:
    until = time.monotonic() + 200
    while run.state not in states:
        assert time.monotonic() < until, run.state
        time.sleep(0.05)


def test_a_run_in_the_background_is_followed_paused_refused_resumed_and_cancelled(tmp_path: Path) -> None:
    run = Run(tmp_path / "short")
    started = run_command("train", *short_run(tmp_path), "training.save_steps=5", "--detach")
    assert started.returncode == 0
    assert f"follow it: trainer logs {run.path} --follow" in started.stderr
    wait_for(run, "running")
    second = run_command("train", "--resume", run.path)
    assert second.returncode == 2
    assert f"error: run 'short': is in use by process {run.status()['pid']} on " in second.stderr
    paused = run_command("trainer", "pause", run.path)
    assert (paused.returncode, run.state, run.status()["stopped_by"]) == (0, "paused", "pause")
    assert paused.stderr == f"short is paused; resume it with: trainer resume {run.path}\n"
    again = run_command("trainer", "pause", run.path)
    assert (again.returncode, again.stderr) == (2, "error: run 'short': is paused, expected a running run\n")
    back = run_command("trainer", "resume", run.path, "--detach", "--format", "json")
    assert (back.returncode, json.loads(back.stdout)["run"]["state"]) == (0, "queued")
    wait_for(run, "running")
    assert "stopped_by" not in run.status()
    cancelled = run_command("trainer", "cancel", run.path)
    assert (cancelled.returncode, run.state) == (0, "cancelled")
    ended = run_command("train", "--resume", run.path, "--detach")
    assert (ended.returncode, "is cancelled, expected an unfinished run" in ended.stderr) == (2, True)
    assert "interrupted; resume with: train --resume" in (run.path / "output.log").read_text()


def test_a_command_that_is_started_again_goes_on_and_knows_when_it_is_done(tmp_path: Path) -> None:
    command = ("train", *short_run(tmp_path), "training.n_epochs=1", "--auto-resume")
    assert run_command(*command).returncode == 0
    again = run_command(*command, "--format", "json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["run"]["state"] == "succeeded"
    assert "run 'short' has finished already" in again.stderr
    other = run_command(*command, "training.learning_rate=0.5")
    assert other.returncode == 2
    assert "error: training.learning_rate: was " in other.stderr
    nameless = run_command("train", "--config", "configs/tiny.yaml", "--auto-resume")
    assert nameless.returncode == 2
    assert "--auto-resume: the run has no name" in nameless.stderr
