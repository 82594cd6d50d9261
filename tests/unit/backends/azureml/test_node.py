"""What runs on a node, run here: it trains, is started again, and lists what it made."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import QUESTIONS
from tests.tiny_runs import _row, train
from trainer.backends.azureml.node import MAX_CHARACTERS, MAX_PARAMETERS, main, measurements, parameters
from trainer.backends.azureml.snapshot import stage
from trainer.config import RunConfig, load_config
from trainer.model.lineage import find_parent
from trainer.runs import Run

pytestmark = pytest.mark.apart


def staged(folder: Path) -> Path:
    (folder / "train.jsonl").write_text("".join(map(_row, QUESTIONS[:10])), encoding="utf-8")
    values = {
        "model": {"base": "builtin:tiny"},
        "data": {"train": str(folder / "train.jsonl")},
        "training": {"n_epochs": 1, "batch_size": 5},
        "backend": {"kind": "azureml"},
        "run": {"name": "one"},
    }
    return stage(RunConfig.model_validate(values), folder / "job").folder


def node(job: Path, output: Path, rank: str = "0") -> "subprocess.CompletedProcess[str]":
    """As a job calls it: in the code's folder, which alone holds the package."""
    command = [sys.executable, "-m", "trainer.backends.azureml.node", "--config", "config.yaml"]
    command += ["--data", str(job / "data"), "--output", str(output)]
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}
    return subprocess.run(
        command, cwd=job / "code", env=own | {"RANK": rank}, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow  # trains twice, in processes of their own
def test_a_job_trains_on_the_mounted_output_and_again_finds_it_finished(tmp_path: Path) -> None:
    job, output = staged(tmp_path), tmp_path / "mount"
    done = node(job, output)
    assert done.returncode == 0, done.stdout + done.stderr
    run = Run(output / "one")
    assert run.state == "succeeded"
    assert run.manifest().data[0].path == "data/train.jsonl"
    listed = json.loads((output / "files.json").read_text())["files"]
    assert "adapter/adapter_model.safetensors" in listed
    assert "lock.json" not in listed
    for name, entry in listed.items():
        data = (run.path / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["size"], entry["sha256"])
    again = node(job, output)
    assert again.returncode == 0
    assert "has finished already" in again.stdout + again.stderr


def test_a_config_that_cannot_be_read_ends_the_job_in_words(tmp_path: Path) -> None:
    job = staged(tmp_path)
    (job / "code" / "config.yaml").write_text("model: {bse: x}", encoding="utf-8")
    done = node(job, tmp_path / "mount")
    assert done.returncode == 2
    assert "did you mean base?" in done.stderr
    assert "Traceback" not in done.stderr


def test_parameters_stay_below_what_azure_ml_takes(tmp_path: Path) -> None:
    long = str(tmp_path / ("x" * 200 + ".jsonl"))
    config = RunConfig.model_validate({"model": {"base": "builtin:tiny"}, "data": {"train": [long] * 40}})
    from trainer.runs import create_run

    run = create_run(config.model_copy(update={"run": config.run.model_copy(update={"root": str(tmp_path)})}))
    found = parameters(run)
    assert 20 < len(found) <= MAX_PARAMETERS
    assert max(len(text) for _, text in found) == MAX_CHARACTERS


def test_only_finite_numbers_are_measurements() -> None:
    row = {"step": 3, "loss": 1.5, "nan": float("nan"), "words": "x", "flag": True, "count": 2}
    assert list(measurements(row)) == [("loss", 1.5, 3), ("count", 2.0, 3)]


def test_main_needs_a_folder_for_its_output(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--config", "x.yaml", "--data", "y"])
    assert "--output" in capsys.readouterr().err


@pytest.mark.parametrize("step", ["", "@16"])
def test_an_earlier_run_is_trained_further_on_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """What is staged of it is a run to the code that looks for one, with the same adapter."""
    (tmp_path / "mine").mkdir()
    earlier = train(tmp_path / "mine")
    (earlier.path / ".env").write_text("secret", encoding="utf-8")
    values = {
        "model": {"base": f"{earlier.path}{step}"},
        "data": {"train": str(tmp_path / "mine" / "train.jsonl")},
        "backend": {"kind": "azureml"},
        "run": {"name": "further", "root": str(tmp_path / "mine" / "runs")},
    }
    job = stage(RunConfig.model_validate(values), tmp_path / "job").folder
    assert list(job.rglob(".env")) == []
    shutil.move(job, tmp_path / "node")
    shutil.rmtree(tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "node")
    parent = find_parent(load_config(Path("code/config.yaml")))
    assert parent is not None
    assert (parent.run.name, parent.step) == ("tuned", 16 if step else None)
    assert parent.adapter_file.is_file()
    assert parent.base.name == "builtin:tiny"
