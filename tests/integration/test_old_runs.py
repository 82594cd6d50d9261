"""Runs made by version 0.1.0, before its files carried a format version: every command still works on them.

`tests/old_runs` holds what that version wrote, unchanged: a finished and a paused run on builtin:tiny, and a finished
run of each service, made by the doubles. Tests work on copies.
"""

import io
import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from tests.commands import Done, performed
from tests.documents import document_of
from tests.integration.azure_twin.fixtures import azure, here
from tests.integration.azure_twin.twin import Twin
from tests.integration.test_azureml_deploy import Containers, containers, deploy
from tests.integration.test_fit import adapter_hash, resume, stop_at
from tests.openai_service.operations import ASK, TEARDOWN
from tests.openai_service.state import File, Flavour, Job, TunedModel
from tests.openai_service.world import MODEL, RUN, World, world
from trainer.backends.azureml.backend import AzureML
from trainer.inference import local
from trainer.inference.client import Sampling
from trainer.runs import Run, create_run
from trainer.runs.checkpoint import list_checkpoints
from trainer.runs.ledger import Ledger
from trainer.runs.manifest import ParentRun
from trainer.training.fit import fit
from trainer.training.prepare import prepare

__all__ = ["azure", "containers", "here"]
OLD = Path(__file__).parents[1] / "old_runs"
FOLDERS = (
    "local/runs/finished", "local/runs/paused", "azureml/runs/glossary-on-azure", "openai/runs/glossary",
    "azure/runs/glossary",
)  # fmt: skip
STOPPED_AT = 4  # the paused run's step
JSON = ("--format", "json")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the local runs with their data, as the current folder."""
    shutil.copytree(OLD / "local", tmp_path / "local")
    monkeypatch.chdir(tmp_path / "local")
    return tmp_path / "local"


def well(*words: str) -> str:
    done = performed(words, lambda: 0.0)
    return _well(done)


def _well(done: Done) -> str:
    assert (done.code, done.errors) == (0, []), done.err
    assert not done.has_traceback
    return done.out + done.err


def test_no_file_names_the_machine_that_made_it() -> None:
    """Absolute paths lead to the neutral folders that the runs were made in, a subscription, or the cache of a node."""
    for path in OLD.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".yaml", ".yml", ".html", ".svg", ".csv"):
            tops = set(re.findall(r"[\"' =](/[a-z]+)/[a-z]", path.read_text(encoding="utf-8")))
            assert tops <= {"/opt", "/srv", "/subscriptions", "/tmp"}, path


@pytest.mark.parametrize("kept", FOLDERS)
def test_an_old_run_is_listed_and_shown_with_its_checkpoints_and_its_log(kept: str, tmp_path: Path) -> None:
    path = tmp_path / "runs" / Path(kept).name
    shutil.copytree(OLD / kept, path)
    run, root = Run(path), str(path.parent)
    state = "paused" if "paused" in kept else "succeeded"
    (listed,) = document_of(performed(("runs", "--root", root, *JSON), lambda: 0.0))["runs"]
    assert (listed["name"], listed["state"], listed["damaged"]) == (run.name, state, [])
    shown = document_of(performed(("show", str(path), *JSON), lambda: 0.0))
    assert shown["made_from"]["base"] == run.config().model.base
    assert [file["role"] for file in shown["made_from"]["data"]] == ["train", "validation"]
    assert run.name in well("show", str(path))
    listed = document_of(performed(("checkpoints", str(path), *JSON), lambda: 0.0))["checkpoints"]
    assert [found["step"] for found in listed] == [found.step for found in list_checkpoints(run.checkpoints)] != []
    assert [found["problem"] for found in listed] == [None] * len(listed)
    assert "step" in well("logs", str(path))


@pytest.mark.slow
def test_a_finished_run_is_exported_bundled_compared_asked_and_trained_further(folder: Path) -> None:
    run = Run(folder / "runs" / "finished")
    before = json.loads((run.report / "report.json").read_text(encoding="utf-8"))
    well("export", "finished", "--output", "exported")
    tensors = load_file(folder / "exported" / "adapter_model.safetensors")
    assert all(torch.equal(tensors[name], kept) for name, kept in _adapter(run.adapter).items())
    well("export", "finished", "--merge", "--output", "merged")
    assert (folder / "merged" / "model.safetensors").is_file()
    assert well("chat", "finished", "What is a cassette?").strip()
    well("evaluate", "finished")
    after = json.loads((run.report / "report.json").read_text(encoding="utf-8"))
    assert _losses(after) == pytest.approx(_losses(before), rel=1e-3)
    well("train", "--config", "local.yaml", "model.base=runs/finished", "run.name=further", "training.n_epochs=1")
    assert Run(folder / "runs" / "further").manifest().parent == ParentRun("finished", None)
    assert "further" in well("compare", "finished", "further")
    well("delete", "finished", "--yes")
    assert not run.path.exists()


def _losses(report: dict[str, Any]) -> list[float]:
    (measure,) = (found for found in report["measures"] if found["key"] == "loss")
    return [measure["base"], measure["tuned"]]


@pytest.mark.slow
def test_a_paused_run_resumes_from_its_checkpoint_bit_identically(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused, again = Run(folder / "runs" / "paused"), Run(folder / "runs" / "again")
    shutil.copytree(paused.path, again.path)
    assert resume(paused).exit_code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 9, signal.SIGTERM)
        assert resume(again).exit_code == 75
    assert resume(again).exit_code == 0
    assert adapter_hash(paused) == adapter_hash(again)
    whole = _uninterrupted(again)
    assert [row["step"] for row in paused.results()] == [row["step"] for row in whole.results()]
    # Bits differ by processor: the old steps may have been computed on another kind than this one.
    kept = OLD / "local" / "runs" / "paused" / "checkpoints" / f"step-{STOPPED_AT:08d}"
    same_steps = all(
        torch.equal(_adapter(whole.checkpoints / kept.name)[name], value) for name, value in _adapter(kept).items()
    )
    if same_steps:
        assert adapter_hash(paused) == adapter_hash(whole)


def _uninterrupted(run: Run) -> Run:
    """A run with the same settings, by this version, with all its checkpoints."""
    config = run.config()
    training = config.training.model_copy(update={"save_total_limit": 100})
    named = config.run.model_copy(update={"name": "whole"})
    prepared = prepare(config.model_copy(update={"training": training, "run": named}), lambda message: None)
    whole = create_run(prepared.config)
    fit(prepared, whole, Console(file=io.StringIO()))
    return whole


def _adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_a_setting_that_changed_is_still_named_where_an_old_run_resumes(folder: Path) -> None:
    done = performed(("train", "--resume", "runs/paused", "lora.r=4"), lambda: 0.0)
    assert done.code == 2
    assert "lora.r: was 2 when the run started, is 4" in done.err


@pytest.fixture(params=["openai", "azure"])
def account(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """The old run of a flavour, and a service that has what the run's ledger says."""
    flavour: Flavour = request.param
    with world(tmp_path, flavour) as made:
        shutil.copytree(OLD / flavour, made.folder, dirs_exist_ok=True)
        _remember(made)
        assert made.difference() == ""
        yield made


def _remember(made: World) -> None:
    """Give the service the files, the job and the models of the run."""
    state, status, now = made.service.state, made.run.status(), made.service.state.clock.now
    rows: dict[str, list[dict[str, Any]]] = {}
    files = {key: _name_of(made, key) for kind, key in made.ledger() if kind == "file"}
    for key, name in files.items():
        role = "train" if name.endswith("train.jsonl") else "validation"
        content = (made.folder / f"{role}.jsonl").read_bytes()
        state.files[key] = File(key, name, "fine-tune", content, now)
        rows[role] = [json.loads(line) for line in content.decode().splitlines()]
    tuned = status["fine_tuned_model"]
    state.jobs[status["job"]] = Job(
        status["job"], MODEL, *files, {}, rows["train"], rows["validation"], 2, 4, 1.0, 7, now,
        state="succeeded", step=6, finished_at=now, fine_tuned_model=tuned,
    )  # fmt: skip
    state.models[tuned] = TunedModel(tuned, MODEL, status["job"], rows["train"], now)


def _name_of(made: World, key: str) -> str:
    lines = (made.run.path / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    return next(str(line["thing"]["key"]) for line in map(json.loads, lines) if line["facts"].get("id") == key)


def test_an_old_run_of_the_service_is_deployed_asked_and_torn_down(account: World) -> None:
    assert MODEL in _well(account.command("show", RUN))
    if account.flavour == "azure":
        _well(account.command("deploy", RUN, "--name", "glossary-old", "--yes"))
        assert "glossary-old" in _well(account.command("endpoints"))
    assert "Term 3 of train is a word for a test." in _well(account.command(*ASK))
    _well(account.command(*TEARDOWN))
    assert [kind for kind, _ in account.inventory()] == ([] if account.flavour == "azure" else ["job"])
    assert account.ledger() == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_an_old_run_of_azure_ml_is_deployed_asked_and_torn_down(
    here: Twin,
    containers: Containers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(OLD / "azureml", tmp_path / "user")
    monkeypatch.chdir(tmp_path / "user")
    run = Run(Path("runs") / "glossary-on-azure")
    endpoint = deploy(run)
    client = AzureML().client(run, endpoint.name, base=False)
    messages = [{"role": "user", "content": "What is a cassette?"}]
    answer = "".join(map(str, client.stream(messages, Sampling(max_tokens=10)))).strip()
    assert answer == local.TunedModel(run).tuned.answer(messages, Sampling(max_tokens=10))
    AzureML().teardown(run, everything=True, say=lambda message: None)
    assert (here.arm.billing(), [entry.thing.kind for entry in Ledger(run.path).open()]) == ([], [])
