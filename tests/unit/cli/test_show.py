"""`trainer show` says what is particular about a run; `--version` what is installed."""

from importlib import metadata
from pathlib import Path

import pytest

from tests.commands import performed
from tests.manifests import manifest
from trainer.backends.azureml.job import JobPlan, remember
from trainer.backends.azureml.workspace import Place
from trainer.config.schema import RunConfig
from trainer.runs import Run, create_run
from trainer.runs.ledger import Ledger, Thing


def made(root: Path, **sections: object) -> Run:
    values: dict[str, object] = {
        "model": {"base": "builtin:tiny"},
        "data": {"train": [{"path": "a.jsonl", "weight": 2}]},
        "training": {"n_epochs": 7},
        "run": {"name": "one", "root": str(root)},
    }
    return create_run(RunConfig.model_validate(values | sections))


def shown(run: Run) -> list[str]:
    done = performed(("show", str(run.path)), lambda: 0.0)
    assert (done.code, done.err) == (0, "")
    return done.out.splitlines()


def test_settings_that_are_no_defaults_are_shown_and_no_others(tmp_path):
    lines = shown(made(tmp_path, azureml={"compute": "gpus"}))
    begin = next(number for number, line in enumerate(lines) if line.startswith("settings that are no defaults"))
    assert lines[begin].endswith("one/config.yaml")
    settings = dict(line.split(None, 1) for line in lines[begin + 1 : lines.index("", begin)])
    assert settings == {
        "model.base": "builtin:tiny",
        "data.train": "[{'path': 'a.jsonl', 'weight': 2.0}]",
        "training.n_epochs": "7",
        "run.name": "one",
        "run.root": str(tmp_path),
    }
    assert len(lines) < 30


def test_settings_of_the_runs_own_backend_are_shown(tmp_path):
    run = made(tmp_path, backend={"kind": "azureml"}, azureml={"compute": "gpus"}, openai={"service": "openai"})
    run.set_status("succeeded")
    text = "\n".join(shown(run))
    assert "azureml.compute" in text
    assert "openai.service" not in text


def section(lines: list[str], title: str) -> dict[str, str]:
    rest = lines[lines.index(title) + 1 :]
    return dict(line.split(None, 1) for line in rest[: rest.index("")])


def test_what_matters_of_a_run_of_this_machine_stands_first(tmp_path):
    run = made(tmp_path)
    run.write_manifest(manifest())
    run.set_status("paused")
    lines = shown(run)
    assert lines[1:3] == ["", "on this machine"]
    assert section(lines, "on this machine") == {
        "device": "CPU (x86_64, 1 threads)", "adapter": f"none so far; resume with: train --resume {run.path}",
    }  # fmt: skip
    run.adapter.mkdir()
    (run.adapter / "adapter_model.safetensors").touch()
    assert section(shown(run), "on this machine")["adapter"] == str(run.adapter)


def test_what_matters_of_a_job_stands_first(tmp_path):
    run = made(tmp_path, backend={"kind": "azureml"}, azureml={"compute": "gpus"})
    remember(run, Place("s", "group", "space"), JobPlan("one-1", "Standard_NC24ads_A100_v4", 1, 60))
    studio = "https://ml.azure.com/runs/one-1"
    run.set_status("failed", backend="azureml", job="one-1", job_status="Failed", studio=studio)
    facts = section(shown(run), "on Azure Machine Learning")
    assert facts.pop("adapter").startswith("none so far")
    assert facts == {
        "job": "one-1, Failed", "studio": studio, "workspace": "space in group", "machine": "Standard_NC24ads_A100_v4",
    }  # fmt: skip
    (run.path / "azureml.json").write_text("{}")
    assert "on Azure Machine Learning" in shown(run)


def test_what_matters_of_a_service_stands_first(tmp_path):
    run = made(tmp_path, backend={"kind": "openai"})
    run.write_manifest(manifest(device="https://acme.openai.azure.com, Standard"))
    run.set_status("succeeded", backend="openai", job="ftjob-1", service_status="succeeded", fine_tuned_model="ft:x",
                   trained_tokens=1234)  # fmt: skip
    thing = Thing("openai", "deployment", "ft-x", "acme", "1.70 an hour", "trainer teardown one")
    Ledger(run.path).write(thing, "exists")
    lines = shown(run)
    at = lines.index("at the fine-tuning service")
    assert [line.strip() for line in lines[at + 1 : lines.index("", at)]] == [
        "service      https://acme.openai.azure.com, Standard",
        "job          ftjob-1, succeeded",
        "model        ft:x",
        "billed       1,234 tokens trained",
        "still bills  deployment ft-x (1.70 an hour)",
    ]


def test_a_damaged_config_hides_nothing_else(tmp_path):
    run = made(tmp_path)
    (run.path / "config.yaml").write_text("training: [\x1b[31m")
    assert any("the file is damaged" in line for line in shown(run))


@pytest.mark.parametrize("words", [("--version",), ("train", "--version")])
def test_the_version_is_shown(words):
    done = performed(words, lambda: 0.0)
    assert (done.code, done.out, done.err) == (0, f"azure-llm-trainer {metadata.version('azure-llm-trainer')}\n", "")


def test_a_file_is_no_folder_of_runs(tmp_path):
    (tmp_path / "a").write_text("")
    done = performed(("runs", "--root", str(tmp_path / "a")), lambda: 0.0)
    assert done.code == 2
    assert "is a file, expected a folder" in done.err


def test_a_damaged_ledger_says_that_nobody_knows_what_bills(tmp_path):
    run = made(tmp_path)
    (run.path / "ledger.jsonl").write_text("{broken\n{}\n")
    assert [line for line in shown(run) if line.split()[:2] == ["still", "bills"]] == [
        "  still bills  not known: ledger.jsonl is damaged"
    ]
