"""The gate of a config, and the general items that show what a tuned model has lost: real runs on the tiny model."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import performed
from tests.conftest import QUESTIONS
from tests.counting import counting_config, launch, write
from tests.documents import document_of
from trainer.backends.azureml.deploy import plan as azureml_plan
from trainer.backends.contract import DeploymentOptions
from trainer.backends.local import execute
from trainer.backends.openai import deploy as openai_deploy
from trainer.config import RunConfig
from trainer.config.load import dump_config
from trainer.errors import ConfigError
from trainer.inference.client import Sampling
from trainer.inference.local import TunedModel
from trainer.inference.suite.items import read_suite
from trainer.runs import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate")


@pytest.fixture(scope="module")
def config(folder: Path) -> RunConfig:
    return counting_config(folder)


@pytest.fixture(scope="module")
def run(config: RunConfig) -> Run:
    return launch(config)[0]


@pytest.fixture(scope="module")
def model(run: Run) -> TunedModel:
    return TunedModel(run)


# The gate of the config


@pytest.mark.slow
def test_a_gate_that_does_not_hold_keeps_the_run_and_ends_with_3(config: RunConfig, folder: Path) -> None:
    weak = config.model_copy(update={
        "training": config.training.model_copy(update={"n_epochs": 1, "learning_rate": 1e-6}),
        "evaluation": config.evaluation.model_copy(update={"gate": "better", "max_new_tokens": 8}),
        "run": config.run.model_copy(update={"name": "weak"}),
    })  # fmt: skip
    (folder / "weak.yaml").write_text(dump_config(weak))
    done = performed(("train", "--config", str(folder / "weak.yaml")), float)
    weak_run = Run(folder / "runs" / "weak")
    words = "gate better does not hold: unclear beside its base"
    assert (done.code, weak_run.state, weak_run.status()["gate"]) == (3, "succeeded", "failed"), done.err
    assert words in done.err
    followed = performed(("logs", str(weak_run.path), "--follow"), float)
    assert (followed.code, words in followed.err) == (3, True)
    assert document_of(performed(("show", str(weak_run.path), "--format", "json"), float))["gate"] == "failed"
    refused = performed(("register", str(weak_run.path)), float)
    assert (refused.code, f"{words}, expected evaluation.gate to hold" in refused.err) == (2, True)
    assert words not in performed(("register", str(weak_run.path), "--ignore-gate"), float).err
    for plan_deployment in (azureml_plan.plan_deployment, openai_deploy.plan_deployment):
        with pytest.raises(ConfigError, match="to hold; look at"):
            plan_deployment(weak_run, weak, DeploymentOptions(), print)
        with pytest.raises(ConfigError) as caught:
            plan_deployment(weak_run, weak, DeploymentOptions(ignore_gate=True), print)
        assert "evaluation.gate" not in str(caught.value)
    again = performed(("train", "--config", str(folder / "weak.yaml"), "--auto-resume", "run.name=weak"), float)
    assert again.code == 3
    assert "has finished already" in again.err
    # What holds now is noted: the gate is of the run's own comparison.
    execute.settle_gate(weak_run, {"verdict": {"kind": "better"}, "models": {"base": "base"}})
    assert weak_run.status()["gate"] == "passed"
    assert performed(("logs", str(weak_run.path), "--follow"), float).code == 0


@pytest.mark.parametrize(("section", "values", "words"), [
    ("data", {"validation": None}, "evaluation.gate: is 'better', but has no effect without validation data"),
    ("evaluation", {"enabled": False}, "evaluation.gate: is 'better', but judges a comparison"),
])  # fmt: skip
def test_a_gate_without_a_comparison_is_refused(
    config: RunConfig, folder: Path, section: str, values: dict[str, Any], words: str
) -> None:
    document = json.loads(config.model_dump_json(exclude_defaults=True))
    document["evaluation"] = {"gate": "better"}
    document[section] = document[section] | values
    (folder / "gated.yaml").write_text(json.dumps(document))
    done = performed(("train", "--config", str(folder / "gated.yaml"), "--check"), float)
    assert (done.code, words in done.err) == (2, True), done.err


# General items


SUITE = [
    {"id": "3", "kind": "known", "messages": [{"role": "user", "content": QUESTIONS[2][0]}],
     "check": {"rules": {"exactly": QUESTIONS[2][1]}}},
    {"id": "none", "kind": "unknown", "messages": [{"role": "user", "content": "What is the capital of Peru?"}],
     "check": {"words": [["Lima"]]}},
]  # fmt: skip


def test_general_items_are_answered_by_both_and_told(run: Run, model: TunedModel, folder: Path) -> None:
    path = write(folder / "suite.jsonl", SUITE)
    done = performed(("evaluate", str(run.path), "--max-rows", "2", "--suite", path), float)
    assert done.code == 0, done.err
    page = next(run.report.glob("2-rows-*-suite-*.html"))
    found = json.loads(page.with_suffix(".json").read_text())
    suite = found["suite"]
    said = {name: [client.answer([{"role": "user", "content": item["messages"][0]["content"]}], Sampling())
                   for item in SUITE] for name, client in (("base", model.base), ("tuned", model.tuned))}  # fmt: skip
    assert {name: [item[name]["text"] for item in suite["items"]] for name in said} == said
    right = said["tuned"][0].strip(".") == QUESTIONS[2][1].strip(".")
    assert (suite["total"], suite["base_right"], suite["gained"]) == (2, 0, int(right))
    assert suite["sentence"] in done.out
    assert suite["sentence"][1:] in page.read_text()
    assert found["verdict"]["remarks"][-1] == suite["sentence"]


def test_a_suite_that_cannot_be_read_is_told_before_a_model_is_loaded(run: Run, folder: Path) -> None:
    path = write(folder / "bad-suite.jsonl", [SUITE[0] | {"check": {"nombre": 1}}])
    done = performed(("evaluate", str(run.path), "--suite", path), float)
    assert (done.code, done.err.strip()) == (2, f"error: {path}:1: check.nombre is not known; remove it")


def test_what_a_template_leaves_out_is_not_asked(model: TunedModel) -> None:
    suite = read_suite("builtin")
    asked, omitted = suite.rendered_by(model.renderer)
    assert len(asked.items) + len(omitted) == len(suite.items)
    template = model.renderer.template
    whole = [template.text([{"role": "user", "content": "Hi"}], item.prompt.tools or None) for item in asked.items]
    assert all("get_weather" in text for item, text in zip(asked.items, whole, strict=True)
               if any(tool["function"]["name"] == "get_weather" for tool in item.prompt.tools))  # fmt: skip
