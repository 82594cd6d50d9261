"""The doctor's losses are those of transformers and PEFT, and what it cannot measure it refuses in a sentence."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from benchmarks.doctor import FIRST, SIGNALS, planted, precision, routed, trained
from tests import tiny_runs
from tests.documents import schema_of
from tests.manifests import rewrite
from trainer.cli.main import trainer_app
from trainer.model.tiny import tiny_base
from trainer.runs import Run
from trainer.runs.checkpoint import list_checkpoints
from trainer.workshop.doctor.examine import examine


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    root = tmp_path_factory.mktemp("doctor")
    return tiny_runs.train(root, model__dtype="float32", memory__token_budget=300)


@pytest.fixture
def run(tuned, tmp_path):
    """A copy, to be damaged."""
    shutil.copytree(tuned.path, tmp_path / "runs" / "tuned")
    return Run(tmp_path / "runs" / "tuned")


@pytest.fixture
def doctor(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(run, *words, code=0):
        done = CliRunner().invoke(trainer_app, ["data", "doctor", str(run.path), *map(str, words)], terminal_width=200)
        assert done.exit_code == code, done.output
        return done.stdout, " ".join(done.stderr.split())

    return call


def alone(model, tokenizer, messages):
    """The mean loss of a row's answer and end marker, by the model's own forward pass over the row alone."""
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
    answer = f"{messages[-1]['content']}<|im_end|>"
    before = tokenizer(prompt, add_special_tokens=False).input_ids
    ids = tokenizer(prompt + answer, add_special_tokens=False).input_ids
    assert ids[: len(before)] == before
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    return float(torch.nn.functional.cross_entropy(logits[len(before) - 1 : -1], torch.tensor(ids[len(before) :])))


def test_losses_are_those_of_transformers_and_peft(tuned):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base())
    base = AutoModelForCausalLM.from_pretrained(tiny_base(), dtype=torch.float32).eval()
    lines = Path(tuned.manifest().files("train")[0].path).read_text(encoding="utf-8").splitlines()
    rows = {n: json.loads(line)["messages"] for n, line in enumerate(lines, 1)}
    found = {row.row.conversation.line: row.losses for row in examine(tuned, None, [], print).suspects}
    assert found.keys() == rows.keys()
    before = {line: alone(base, tokenizer, said) for line, said in rows.items()}
    adapted = PeftModel.from_pretrained(base, tuned.adapter).eval()
    after = {line: alone(adapted, tokenizer, said) for line, said in rows.items()}
    for line, losses in found.items():
        assert losses.before == pytest.approx(before[line], abs=1e-5)
        assert losses.after == pytest.approx(after[line], abs=1e-5)
    assert sum(after.values()) < 0.9 * sum(before.values())
    others = [alone(adapted, tokenizer, [*rows[other][:-1], rows[1][-1]]) for other in rows if other != 1]
    assert min(others) - 1e-5 < found[1].elsewhere < max(others) + 1e-5


def test_a_checkpoint_is_measured_in_place_of_the_adapter(tuned, doctor):
    step = list_checkpoints(tuned.checkpoints)[-1].step
    told = json.loads(doctor(tuned, "--checkpoint", step, "--format", "json")[0])
    assert told["step"] == step
    _, said = doctor(tuned, "--checkpoint", 999, code=2)
    assert f"--checkpoint: run 'tuned' has none of step 999, expected one of: 12, {step}" in said


def test_machines_people_and_a_file_are_told_the_same(tuned, doctor, tmp_path):
    out, _ = doctor(tuned, "--format", "json", "--rows", 3, "--output", "rows.jsonl")
    told = json.loads(out)
    Draft202012Validator(schema_of("data doctor")).validate(told)
    assert (told["document"], told["rows"], len(told["suspects"]), told["written"]) == (
        "data doctor",
        20,
        3,
        "rows.jsonl",
    )
    written = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert written[:3] == told["suspects"]
    assert sorted(row["line"] for row in written) == list(range(1, 21))
    out, said = doctor(tuned, "--rows", 1)
    first = told["suspects"][0]
    assert f"{first['file']}:{first['line']}  score {first['score']:.1f}, loss {first['loss_before']:.2f} before" in out
    assert "20 rows measured" in out
    assert "1 row shown" in out
    _, said = doctor(tuned, "--output", "rows.jsonl", code=2)
    assert "rows.jsonl" in said
    _, said = doctor(tuned, "--force", code=2)
    assert "--force: is given without --output" in said


@pytest.mark.slow
def test_libraries_say_nothing_in_a_process_of_its_own(tuned):
    done = subprocess.run(
        [Path(sys.executable).with_name("trainer"), "data", "doctor", tuned.path], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_rows_of_another_file_are_examined_with_a_note(tuned, doctor, tmp_path):
    (tmp_path / "other.jsonl").write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "x"}]})
            + "\n"
            for n in "abc"
        )
    )
    told = json.loads(doctor(tuned, "--data", "other.jsonl", "--format", "json")[0])
    assert told["rows"] == 3
    assert told["notes"] == ["the rows are those of other.jsonl; whether the run was trained on them is not known"]
    assert all(math.isfinite(row["loss_after"]) for row in told["suspects"])


def changed(run, tmp_path):
    (tmp_path / "t.jsonl").write_text("changed")
    file = run.manifest().files("train")[0]
    rewrite(run, data=(type(file)(str(tmp_path / "t.jsonl"), "train", file.sha256, file.rows),))


def moved(run, tmp_path):
    file = run.manifest().files("train")[0]
    rewrite(run, data=(type(file)(str(tmp_path / "gone.jsonl"), "train", file.sha256, file.rows),))


def without_adapter(run, _):
    shutil.rmtree(run.adapter)
    run.set_status("paused")


def damaged_adapter(run, _):
    file = run.adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


def damaged_manifest(run, _):
    (run.path / "manifest.json").write_text("{")


def running(run, _):
    run.set_status("running")


def at_a_service(run, _):
    run.set_status("succeeded", backend="openai")


def other_template(run, _):
    rewrite(run, template_sha256="0" * 64)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (changed, "t.jsonl: holds other rows than the run was trained on, expected the file of sha256"),
        (moved, "gone.jsonl: is not there, expected the file of sha256"),
        (without_adapter, "has no adapter (its state is paused), expected a finished run"),
        (damaged_adapter, "adapter_model.safetensors differs from what was written; bring the old files back"),
        (damaged_manifest, "manifest.json: "),
        (running, "run 'tuned': is running, expected a finished run; wait until it has ended, or measure with one of"),
        (at_a_service, "its model is kept by the service, which gives neither weights nor the loss of a row away"),
        (other_template, "its base has another chat template now; bring the old one back"),
    ],
)
def test_a_run_that_cannot_be_measured_is_refused_and_nothing_is_written(run, doctor, tmp_path, fault, sentence):
    fault(run, tmp_path)
    out, said = doctor(run, "--output", "rows.jsonl", code=2)
    assert sentence in said
    assert out == ""
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_damaged_checkpoint_is_refused(run, doctor):
    checkpoint = list_checkpoints(run.checkpoints)[-1]
    (checkpoint.path / "adapter_model.safetensors").write_bytes(b"")
    _, said = doctor(run, "--checkpoint", checkpoint.step, code=2)
    assert (
        f"--checkpoint: step {checkpoint.step} of run 'tuned' is not whole: adapter_model.safetensors differs" in said
    )


@pytest.mark.slow
def test_planted_answers_stand_first(tmp_path):
    made, lines = planted(routed()[:240], seed=0)
    found = examine(trained(made, tmp_path, epochs=4), None, [], print).suspects
    assert len(lines) == 12
    assert precision(found, lines, SIGNALS["score"])["found"] >= 6
    assert FIRST == 20
