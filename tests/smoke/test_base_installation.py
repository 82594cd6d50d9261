"""Without any extra: what needs none works, and all else says in one sentence what to install."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from trainer.config.schema import RunConfig
from trainer.runs import Run, create_run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DATA = str(ROOT / "data" / "glossary_train.jsonl")
TINY = ("--config", str(ROOT / "configs" / "tiny.yaml"), f"data.train={DATA}", "data.validation=")
AZUREML = ("azureml.compute=gpu", "azureml.subscription=s", "azureml.resource_group=g", "azureml.workspace=w")
OURS = "azure-llm-trainer"
# -S: no site-packages but those that are linked below.
PROGRAM = "import sys; sys.path[:0] = {paths!r}; sys.argv[0] = '{name}'; from trainer.cli.main import {name}; {name}()"

WORK = {
    "init": ("trainer", "init", "--base", "builtin:tiny", "--data", DATA, "--output", "own.yaml"),
    "init --sample": ("trainer", "init", "--sample", "--yes"),
    "data check": ("trainer", "data", "check", DATA),
    "data convert": ("trainer", "data", "convert", str(ROOT / "data" / "glossary.json"), "--output", "rows.jsonl",
                     "--question", "What is {term}?"),
    "data split": ("trainer", "data", "split", DATA, "--output-dir", "."),
    "data stats": ("trainer", "data", "stats", DATA),
    "data clean --kinds": ("trainer", "data", "clean", "--kinds"),
    "data rules": ("trainer", "data", "rules"),
    "config schema": ("trainer", "config", "schema"),
    "config reference": ("trainer", "config", "reference"),
    "runs": ("trainer", "runs"),
    "show": ("trainer", "show", "done"),
    "show --format json": ("trainer", "show", "done", "--format", "json"),
    "schemas": ("trainer", "schemas"),
    "logs": ("trainer", "logs", "done"),
    "checkpoints": ("trainer", "checkpoints", "done"),
    "endpoints": ("trainer", "endpoints"),
    "teardown": ("trainer", "teardown", "--all"),
    "delete": ("trainer", "delete", "done", "--yes"),
}  # fmt: skip
NEED = {  # and the extra that they name
    "train": (("train", *TINY), "local"),
    "train --check": (("train", *TINY, "--check"), "local"),
    "train --detach": (("train", *TINY, "--detach"), "local"),
    "train --preview": (("train", *TINY, "--preview", "1"), "local"),
    "resume": (("trainer", "resume", "begun"), "local"),
    "data preview": (("trainer", "data", "preview", DATA, *TINY[:2]), "local"),
    "data stats --config": (("trainer", "data", "stats", DATA, *TINY[:2]), "local"),
    "data clean": (("trainer", "data", "clean", DATA), "workshop"),
    "data clean --base": (("trainer", "data", "clean", DATA, "--base", "builtin:tiny"), "local"),
    "chat": (("trainer", "chat", "done", "Who are you?"), "local"),
    "evaluate": (("trainer", "evaluate", "done"), "local"),
    "export": (("trainer", "export", "done", "--output", "exported"), "local"),
    "serve": (("trainer", "serve", "done"), "serve"),
    "ui": (("trainer", "ui", "--no-open"), "ui"),
    "train on Azure ML": (("train", *TINY, "--check", "backend.kind=azureml", *AZUREML), "azure"),
    "train by OpenAI": (("train", "--config", str(ROOT / "configs" / "openai.yaml"), "--check", f"data.train={DATA}",
                         "data.validation="), "openai"),
    "models": (("trainer", "models", "--config", str(ROOT / "configs" / "openai.yaml")), "openai"),
}  # fmt: skip


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """Links to the files of what this package requires without an extra, and of what that requires."""
    folder, waiting, seen = tmp_path_factory.mktemp("packages"), [OURS], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        found = metadata.distribution(name)
        needs = map(Requirement, found.requires or ())
        waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
        for file in found.files or ():
            if ".." not in file.parts and file.suffix not in (".pth", ".pyc"):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).symlink_to(Path(str(file.locate())))
    return folder


@pytest.fixture
def called(tmp_path, packages):
    """Calls a program from a folder of its own with two runs in it."""
    for name, state in (("done", "succeeded"), ("begun", "paused")):
        create_run(settings(tmp_path / "runs", name)).set_status(state)
    (tmp_path / "runs" / "done" / "adapter").mkdir()
    (tmp_path / "runs" / "done" / "adapter" / "adapter_model.safetensors").touch()

    def call(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = PROGRAM.format(paths=[str(ROOT / "src"), str(packages)], name=name)
        command = [sys.executable, "-I", "-S", "-c", program, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return call


def settings(root: Path, name: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"base": "builtin:tiny"},
            "data": {"train": DATA},
            "evaluation": {"max_rows": 1, "max_new_tokens": 1},
            "run": {"name": name, "root": str(root)},
        }
    )


@pytest.mark.parametrize("name", WORK)
def test_what_needs_no_extra_works(name, called):
    done = called(*WORK[name])
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", NEED)
def test_what_needs_more_says_what_to_install(name, called, tmp_path):
    words, extra = NEED[name]
    before = sorted(tmp_path.rglob("*"))
    done = called(*words)
    assert "Traceback" not in done.stderr
    assert done.returncode == 2, done.stderr
    expected = rf"error: .* needs .*, which (is|are) not installed; run: pip install (--editable )?'.*\[{extra}\]'\n"
    assert re.fullmatch(expected, done.stderr)
    assert sorted(tmp_path.rglob("*")) == before
    assert Run(tmp_path / "runs" / "begun").state == "paused"
