"""`trainer show` says what is particular about a run; `--version` what is installed."""

from importlib import metadata
from pathlib import Path

import pytest

from tests.commands import performed
from trainer.config.schema import RunConfig
from trainer.runs import Run, create_run


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
