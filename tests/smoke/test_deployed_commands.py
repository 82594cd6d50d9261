"""Commands around what is deployed and what still bills, as a user runs them; no service is spoken to here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from trainer.config import RunConfig
from trainer.runs import Run, create_run
from trainer.runs.ledger import Ledger, Thing

DEPLOYMENT = Thing("openai", "deployment", "clippy", "my-resource", "1.70 USD an hour", "trainer teardown spent")
FILE = Thing("openai", "file", "train.jsonl", "my-resource")


def trainer(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, words)],
        cwd=REPOSITORY,
        env=os.environ | {"NO_COLOR": "1", "OPENAI_API_KEY": "", "AZURE_OPENAI_API_KEY": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def run(tmp_path: Path) -> Run:
    settings = {"model": {"base": "builtin:tiny"}, "data": {"train": "data/starter.jsonl"}}
    config = RunConfig.model_validate(settings | {"run": {"name": "spent", "root": str(tmp_path)}})
    made = create_run(config)
    made.set_status("succeeded")
    return made


def test_a_run_that_may_bill_is_not_deleted(run: Run) -> None:
    Ledger(run.path).write(DEPLOYMENT, "intended")
    done = trainer("delete", run.path, "--yes")
    assert done.returncode == 2
    assert done.stderr == (
        "error: run 'spent': deployment clippy may still bill, expected nothing that does; "
        f"first: trainer teardown {run.path} --everything\n"
    )
    assert run.path.exists()


def test_what_costs_nothing_or_is_gone_does_not_keep_a_run(run: Run) -> None:
    ledger = Ledger(run.path)
    ledger.write(DEPLOYMENT, "exists")
    ledger.write(DEPLOYMENT, "deleted")
    ledger.write(FILE, "exists")
    assert trainer("delete", run.path, "--yes").returncode == 0
    assert not run.path.exists()


def test_nothing_deployed_and_nothing_left_are_said(run: Run) -> None:
    done = trainer("endpoints", "--root", run.path.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing is deployed\n", "")
    done = trainer("teardown", "--all", "--root", run.path.parent)
    assert (done.returncode, done.stderr) == (0, "nothing is left to delete: no ledger holds anything that exists\n")


def test_a_teardown_is_not_done_without_being_agreed_to(run: Run) -> None:
    Ledger(run.path).write(DEPLOYMENT, "exists")
    done = trainer("teardown", run.path)
    assert done.returncode == 2
    assert done.stderr == (
        "spent: deployment clippy in my-resource  1.70 USD an hour\n"
        "error: nobody can be asked whether to do this, expected --yes; add it to agree\n"
    )
    assert len(Ledger(run.path).open()) == 1


MISTAKES = {
    "nothing named": (["teardown"], "error: trainer teardown: expected RUN, or --all for every run"),
    "both": (["teardown", "{run}", "--all"], "error: trainer teardown: expected RUN, or --all for every run"),
    "a run of this machine": (
        ["deploy", "{run}"],
        "error: run 'spent': was trained on this machine, expected --config with a config whose backend.kind is "
        "'azureml', to say where it goes; or serve it here: trainer serve RUN",
    ),
    "a config for this machine": (
        ["deploy", "{run}", "--config", "configs/tiny.yaml"],
        "error: run 'spent': was trained on this machine, expected --config with a config whose backend.kind is "
        "'azureml', to say where it goes; or serve it here: trainer serve RUN",
    ),
    "an endpoint that is not there": (
        ["chat", "{run}", "Hi", "--endpoint", "any"],
        "error: run 'spent': has nothing deployed, expected an endpoint; make one: trainer deploy {run}",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_exits_with_2_and_is_told_in_words(run: Run, name: str) -> None:
    words, told = MISTAKES[name]
    done = trainer(*(word.format(run=run.path) for word in words))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == told.format(run=run.path) + "\n"
