"""What runs on a node, run here: it trains, is started again, and lists what it made."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import yaml

import trainer
from tests.conftest import QUESTIONS
from tests.environments import REPOSITORY
from tests.integration.azure_twin.gpus import GPUs, equip
from tests.integration.azure_twin.mount import refusing
from tests.manifests import manifest
from tests.tiny_runs import _row, train
from trainer.backends.azureml import copies, gpu_check
from trainer.backends.azureml.copies import Copies
from trainer.backends.azureml.follow import end_of
from trainer.backends.azureml.node import (
    MAX_CHARACTERS,
    MAX_FAILURES,
    MAX_PARAMETERS,
    main,
    measurements,
    parameters,
    write_measurements,
)
from trainer.backends.azureml.snapshot import copy_package, own_files, stage
from trainer.config import RunConfig, load_config
from trainer.errors import ConfigError, ExitCode
from trainer.model.lineage import find_parent
from trainer.runs import Run, create_run, files, lock
from trainer.runs.checkpoint import newest_complete

pytestmark = pytest.mark.apart

NOT_INSTALLED = """
import importlib.metadata

found = importlib.metadata.Distribution.from_name.__func__


def from_name(kind, name):
    if name == "azure-llm-trainer":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(kind, name)


importlib.metadata.Distribution.from_name = classmethod(from_name)
"""


def staged(folder: Path, gate: str | None = None, **training: int) -> Path:
    (folder / "train.jsonl").write_text("".join(map(_row, QUESTIONS[:10])), encoding="utf-8")
    (folder / "held.jsonl").write_text("".join(map(_row, QUESTIONS[10:13])), encoding="utf-8")
    values = {
        "model": {"base": "builtin:tiny"},
        "data": {"train": str(folder / "train.jsonl")} | ({"validation": str(folder / "held.jsonl")} if gate else {}),
        "training": {"n_epochs": 1, "batch_size": 5} | training,
        "evaluation": {"gate": gate, "max_new_tokens": 8} if gate else {},
        "backend": {"kind": "azureml"},
        "run": {"name": "one"},
    }
    return stage(RunConfig.model_validate(values), folder / "job").folder


def command_of(job: Path, output: Path, gpus: int = 0) -> list[str]:
    command = [sys.executable, "-m", "trainer.backends.azureml.node", "--config", "config.yaml"]
    return [*command, "--data", str(job / "data"), "--output", str(output), "--gpus", str(gpus)]


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}


def run_node(command: list[str], job: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """As a job calls it: in the code's folder, which alone holds the package."""
    everything = clean_environment() | environment
    return subprocess.run(command, cwd=job / "code", env=everything, capture_output=True, text=True, timeout=300)


def node(job: Path, output: Path, rank: str = "0", gpus: GPUs | None = None) -> "subprocess.CompletedProcess[str]":
    """`gpus`: where the machine is to have one."""
    equipped = equip(job.parent / "gpus", gpus, os.environ["PATH"]) if gpus is not None else {}
    return run_node(command_of(job, output, 0 if gpus is None else 1), job, equipped | {"RANK": rank})


@pytest.mark.slow  # trains twice, in processes of their own
def test_a_job_trains_on_the_mounted_output_and_again_finds_it_finished(tmp_path: Path) -> None:
    job, output = staged(tmp_path, gate="better"), tmp_path / "mount"
    done = node(job, output)
    assert done.returncode == 0, done.stdout + done.stderr  # a gate that does not hold fails no job
    run = Run(output / "one")
    assert (run.state, run.status()["gate"]) == ("succeeded", "failed")
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


@pytest.mark.slow  # trains three times, in processes of their own
def test_a_mount_that_takes_whole_files_only_loses_nothing_when_its_machine_goes(tmp_path: Path) -> None:
    """Killed after a checkpoint and resumed on another machine, the adapter is that of an uninterrupted run."""
    job, mount = staged(tmp_path, n_epochs=3, save_steps=1), tmp_path / "mount"
    mount.mkdir()
    environment = refusing([mount], tmp_path / "site", {"TMPDIR": str(tmp_path)})
    process = subprocess.Popen(
        [*command_of(job, mount), "training.n_epochs=30"], cwd=job / "code", env=clean_environment() | environment,
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + 240
    while not list(mount.rglob("MANIFEST.json")):
        assert (process.poll(), time.monotonic() < until) == (None, True)
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    newest, _ = newest_complete(mount / "one" / "checkpoints")  # one that was being rotated out is none
    assert newest is not None
    resumed = run_node([*command_of(job, mount), "training.n_epochs=30"], job, environment)
    assert resumed.returncode == 0, resumed.stderr
    assert f"resuming one from step {newest.step}" in resumed.stderr
    whole = run_node([*command_of(job, tmp_path / "whole"), "training.n_epochs=30"], job, environment)
    assert whole.returncode == 0, whole.stderr
    adapter = Path("one", "adapter", "adapter_model.safetensors")
    assert (mount / adapter).read_bytes() == (tmp_path / "whole" / adapter).read_bytes()
    listed = json.loads((mount / "files.json").read_text())["files"]
    assert {name for name in listed if not (mount / "one" / name).is_file()} == set()
    assert "copying" not in resumed.stderr


def tracked(folder: Path) -> Path:
    """The package as a clean clone has it: the files that git knows, and no metadata of an installation."""
    listed = subprocess.run(["git", "ls-files", "src"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, folder / name)
    return folder / "src"


def installed(folder: Path) -> Path:
    """The package as a wheel installs it, copied beside nothing, as docs/azureml.md says."""
    copy_package(folder / "src" / "trainer")
    return folder / "src"


@pytest.mark.slow  # trains, in a process of its own
@pytest.mark.parametrize("package", [tracked, installed])
def test_the_yaml_works_by_hand_where_nothing_is_installed(package: Callable[[Path], Path], tmp_path: Path) -> None:
    """The command of job.yml, whose package is the folder it uploads; importlib.metadata knows no such package."""
    code, equipped = package(tmp_path / "clone"), equip(tmp_path / "gpus", GPUs(1), os.environ["PATH"])
    with (tmp_path / "gpus" / "site" / "sitecustomize.py").open("a") as file:
        file.write(NOT_INSTALLED)
    job = staged(tmp_path)
    given = {
        "inputs.config": job / "code" / "config.yaml",
        "inputs.data": job / "data",
        "outputs.run": tmp_path / "run",
    }
    words = str(yaml.safe_load((own_files() / "job.yml").read_text(encoding="utf-8"))["command"]).split()
    assert words[0] == "python"
    paths = {"${{" + name + "}}": str(path) for name, path in given.items()}
    command = [sys.executable, *(paths.get(word, word) for word in words[1:])]
    done = subprocess.run(command, cwd=code, env=os.environ | equipped, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Run(tmp_path / "run" / "llama-support").manifest().trainer_version == trainer.__version__


def test_the_version_is_stated_once() -> None:
    assert metadata.version("azure-llm-trainer") == trainer.__version__


def test_a_gpu_that_cannot_be_used_fails_a_run_that_an_earlier_machine_began(tmp_path: Path) -> None:
    """At `running` with a step it would count as interrupted, and be resumed on the next such machine."""
    job, run = staged(tmp_path), Run(tmp_path / "mount" / "one")
    run.path.mkdir(parents=True)
    run.set_status("running", step=8)
    done = node(job, tmp_path / "mount", gpus=GPUs(1, cuda="13.0", starts=False))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("GPU: 0 can be used and the plan counts on 1;")
    status = run.status()
    assert (status["state"], status["step"], status["error"]) == ("failed", 8, done.stderr.strip())
    assert end_of("Failed", status, "UserError")[0] == "failed"
    assert [path.name for path in run.path.iterdir()] == ["status.json"]


def test_a_gpu_that_cannot_be_used_begins_no_run(tmp_path: Path) -> None:
    done = node(staged(tmp_path), tmp_path / "mount", gpus=GPUs(1, cuda="13.0", starts=False))
    assert (done.returncode, (tmp_path / "mount").exists()) == (1, False)


def held(folder: Path, beats: bool) -> threading.Event:
    """A lock of another machine on the mount, whose owner `beats` or is gone; set the event to end it."""
    over, owner = threading.Event(), {"host": "another", "boot": "another", "pid": 1, "token": "x"}
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / lock.NAME, owner | {"beat": 0})

    def beat() -> None:
        number = 0
        while not over.wait(0.1):
            number += 1
            files.write_json(folder / lock.NAME, owner | {"beat": number})

    if beats:
        threading.Thread(target=beat, daemon=True).start()
    return over


def end_here(job: Path, mount: Path, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> int:
    """The exit code of the first process on a machine whose GPUs cannot be used; the check takes `seconds`."""

    def problem(expected: int | None) -> str:
        time.sleep(seconds)
        return "GPU: gone"

    monkeypatch.setattr(gpu_check, "problem", problem)
    monkeypatch.chdir(job / "code")
    return main(command_of(job, mount, 1)[3:])


def test_the_verdict_on_the_gpus_comes_before_anything_is_read_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Checkpoints fill gigabytes of a mount, and none helps a run whose machine cannot train."""
    job, run, read = staged(tmp_path), Run(tmp_path / "mount" / "one"), list[tuple[str, str]]()
    (run.path / "checkpoints" / "step-8").mkdir(parents=True)
    (run.path / "checkpoints" / "step-8" / "model.safetensors").write_bytes(b"x")
    run.set_status("running", step=8)
    real, said = copies._copy, ""

    def copy(source: Path, target: Path) -> None:
        nonlocal said
        said += capsys.readouterr().err
        read.append((source.name, said))
        real(source, target)

    monkeypatch.setattr(copies, "_copy", copy)
    assert end_here(job, tmp_path / "mount", monkeypatch) == 1
    assert read == [("status.json", "GPU: gone\n")] * 2
    assert (run.state, run.status()["error"]) == ("failed", "GPU: gone")


def test_a_mount_that_fails_keeps_no_verdict_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mount").write_text("a file where a folder is mounted", encoding="utf-8")
    assert end_here(staged(tmp_path), tmp_path / "mount", monkeypatch) == 1
    assert capsys.readouterr().err.splitlines()[0] == "GPU: gone"


def test_the_time_of_the_check_counts_for_a_lock_that_no_machine_holds_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for a sign of life of a machine that is gone overlaps with the check."""
    job, run = staged(tmp_path), Run(tmp_path / "mount" / "one")
    held(run.path, beats=False)
    run.set_status("running", step=8)
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 2.0)
    begun = time.monotonic()
    assert end_here(job, tmp_path / "mount", monkeypatch, seconds=2.0) == 1
    assert (run.state, time.monotonic() - begun < 3.5) == ("failed", True)


def test_a_run_that_another_machine_trains_is_not_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither by a first process, where the owner's lock beats, nor by the process of a second machine."""
    job, run = staged(tmp_path), Run(tmp_path / "mount" / "one")
    run.path.mkdir(parents=True)
    run.set_status("running", step=8)
    before = run.status()
    monkeypatch.setenv("RANK", "1")
    assert (end_here(job, tmp_path / "mount", monkeypatch), run.status()) == (1, before)
    assert capsys.readouterr().err == "GPU: gone\n"
    monkeypatch.setenv("RANK", "0")
    over = held(run.path, beats=True)
    try:
        assert (end_here(job, tmp_path / "mount", monkeypatch), run.status()) == (1, before)
    finally:
        over.set()
    lines = capsys.readouterr().err.splitlines()
    assert (lines[0], "one: is not marked as failed: run 'one': is in use by" in lines[-1]) == ("GPU: gone", True)


def test_one_process_of_a_machine_checks_its_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight processes that each ask all of eight GPUs make 64 contexts of CUDA, and may take longer than the limit."""
    asked = list[str]()
    monkeypatch.setattr(gpu_check, "problem", lambda expected: asked.append(os.environ["LOCAL_RANK"]))
    monkeypatch.setattr(Copies, "fetch", lambda self, everything: (_ for _ in ()).throw(ConfigError("far enough")))
    job = staged(tmp_path)
    for rank, local in ((0, 0), (1, 1), (2, 0), (3, 1)):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(local))
        monkeypatch.chdir(job / "code")
        assert main(command_of(job, tmp_path / "mount", 2)[3:]) == ExitCode.BAD_INPUT
    assert asked == ["0", "0"]


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
    run = create_run(config.model_copy(update={"run": config.run.model_copy(update={"root": str(tmp_path)})}))
    found = parameters(run)
    assert 20 < len(found) <= MAX_PARAMETERS
    assert max(len(text) for _, text in found) == MAX_CHARACTERS


class Tracker:
    """The part of MLflow's client that a node uses. `refusals`: how often parameters are refused."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.params, self.metrics, self.tries = refusals, dict[str, str](), [], 0

    def log_batch(self, run_id: str, metrics: Sequence[Any] = (), params: Sequence[Any] = ()) -> None:
        self.metrics += metrics
        if params:
            self.tries += 1
            if self.tries <= self.refusals:
                raise ConnectionError("no answer")
            self.params |= {param.key: param.value for param in params}


@pytest.mark.parametrize(("refusals", "tries", "are_there"), [(0, 1, True), (2, 3, True), (99, MAX_FAILURES, False)])
def test_parameters_are_tried_again_and_hold_up_no_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int, tries: int, are_there: bool
) -> None:
    class Param(NamedTuple):
        key: str
        value: str

    class Metric(NamedTuple):
        key: str
        value: float
        timestamp: int
        step: int

    tracker = Tracker(refusals)
    entities = SimpleNamespace(Metric=Metric, Param=Param)
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=lambda: tracker, entities=entities))
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setenv("MLFLOW_RUN_ID", "job")
    values = {"model": {"base": "builtin:tiny"}, "data": {"train": "a.jsonl"}, "run": {"root": str(tmp_path)}}
    run = create_run(RunConfig.model_validate(values))
    run.write_manifest(manifest())
    done: dict[str, int] = {}
    for step in range(1, 9):
        run.append_metrics({"step": step, "loss": 1.0})
        write_measurements(run, done)
    assert [metric.step for metric in tracker.metrics] == list(range(1, 9))
    assert tracker.tries == tries
    assert tracker.params == (dict(parameters(run)) if are_there else {})


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
