"""Base and tuned model side by side on Azure, each behind a deployment of its own."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import Request
from tests.openai_service.deviations import unexplained
from tests.openai_service.operations import ASK, DEPLOY
from tests.openai_service.service import OLD_VERSION
from tests.openai_service.state import Deployment
from tests.openai_service.world import MODEL, RUN, World, one_message, world

TRAIN = ("train", "--config", "config.yaml", "--yes")
BASE, TUNED = "the-base", "glossary-one"
UNTRAINED = f"I am {MODEL} and was not trained on this."


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[World]:
    """An account in which somebody has deployed the base already."""
    with world(tmp_path, "azure") as made:
        body = {"sku": {"name": "Standard"}, "properties": {"model": {"name": MODEL}}}
        now = made.service.state.clock.now
        made.service.state.deployments[BASE] = Deployment(BASE, body, now, now, "Succeeded")
        yield made
        assert unexplained("azure", made.contract.findings) == []


def well(made: World, *words: str) -> str:
    done = made.command(*words)
    assert (done.code, done.errors) == (0, []), done.err
    return done.out + done.err


def asked(made: World) -> Counter[str]:
    """How many answers each deployment was asked for."""
    chats = [request for request in made.loopback.requests if request.path.endswith("/chat/completions")]
    return Counter(_model_of(request) for request in chats)


def _model_of(request: Request) -> str:
    before, _, after = request.path.partition("/deployments/")
    return after.partition("/")[0] or str(request.json()["model"]) if before else ""


def report(made: World) -> Any:
    return json.loads((made.run.path / "report" / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("version", [None, OLD_VERSION])
def test_deploying_beside_a_base_ends_in_a_report_on_both(version: str | None, azure: World) -> None:
    azure.config(openai={"base_deployment": BASE, "api_version": version})
    well(azure, *TRAIN)
    assert asked(azure) == {}
    told = well(azure, *DEPLOY)
    assert "comparison: 10 answers by base and tuned model" in told
    assert asked(azure) == {BASE: 10, TUNED: 10}
    found = report(azure)
    assert (found["num_rows"], found["verdict"]["kind"]) == (10, "better")
    answers = [row["answers"][0] for row in found["rows"]]
    assert all(answer["base"]["text"].startswith(UNTRAINED) for answer in answers)
    assert {answer["tuned"]["text"][:5] for answer in answers} == {"Term "}
    assert found["verdict"]["sentence"] in well(azure, "show", RUN)


def test_a_question_is_answered_side_by_side_by_both_deployments(azure: World) -> None:
    well(azure, *TRAIN)
    azure.config(openai={"base_deployment": BASE})
    well(azure, *DEPLOY, "--config", "config.yaml")
    azure.loopback.requests.clear()
    told = " ".join(well(azure, *ASK, "--compare").split())
    assert asked(azure) == {BASE: 1, TUNED: 1}
    assert "base" in told
    assert "tuned" in told
    assert UNTRAINED.split(" and ")[0] in told
    assert "Term 3 of train" in told
    assert well(azure, *ASK, "--base").startswith(UNTRAINED)


def test_a_report_that_exists_is_neither_quoted_nor_made_again(azure: World) -> None:
    azure.config(openai={"base_deployment": BASE})
    well(azure, *TRAIN)
    well(azure, *DEPLOY)
    azure.loopback.requests.clear()
    assert "comparison:" not in well(azure, "deploy", RUN, "--name", "glossary-two", "--yes")
    assert asked(azure) == {}


def test_a_base_that_does_not_answer_costs_the_report_and_neither_run_nor_deployment(azure: World) -> None:
    azure.config(openai={"base_deployment": "nobody"})
    well(azure, *TRAIN)
    told = well(azure, *DEPLOY)
    assert "the run is complete; its comparison with the base failed: asking nobody: the service answered 404" in told
    assert (azure.run.state, azure.run.comparison()) == ("succeeded", {})
    assert TUNED in well(azure, "endpoints")
    assert "asking nobody: the service answered 404" in one_message(azure.command(*ASK, "--compare"))


def test_without_a_base_deployment_the_setting_that_names_it_is_asked_for(azure: World) -> None:
    well(azure, *TRAIN)
    well(azure, *DEPLOY)
    assert asked(azure) == {}
    assert "openai.base_deployment: is not set" in one_message(azure.command(*ASK, "--compare"))


def test_weights_that_are_not_here_are_compared_through_the_service_only(azure: World) -> None:
    well(azure, *TRAIN)
    assert "its model is kept by the service" in one_message(azure.command("evaluate", RUN))
