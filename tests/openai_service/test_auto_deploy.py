"""`backend.auto_deploy`: agreed to with the run, within its cap, made once it has succeeded, and never twice."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import Fault, status
from tests.openai_service.arm import ACCOUNT
from tests.openai_service.deviations import unexplained
from tests.openai_service.retail import HOST
from tests.openai_service.state import Deployment
from tests.openai_service.world import RUN, World, one_message, world
from trainer.backends.openai.backend import OpenAIService
from trainer.errors import ExitCode
from trainer.runs.ledger import Ledger
from trainer.runs.lock import RunInUse

TUNED = "model.base=gpt-4.1-mini-2025-04-14"
AUTO = ("train", "--config", "config.yaml", "--yes", TUNED, "backend.auto_deploy=true")
STANDARD = ("openai.deployment_sku=standard", "backend.spend_cap=700")


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, "azure") as found:
        yield found
        assert unexplained("azure", found.contract.findings) == []


def deployed(made: World) -> list[tuple[str, str]]:
    """Model and SKU of each deployment at the service."""
    return [(each.model, each.body["sku"]["name"]) for each in made.service.state.deployments.values()]


def tuned(made: World) -> str:
    return str(next(iter(made.service.state.jobs.values())).fine_tuned_model)


@pytest.mark.parametrize(
    ("settings", "sku", "quoted"),
    [
        (STANDARD, "Standard", "360 hours at 1.70 an hour: 612.00 USD"),
        (("openai.deployment_sku=developer",), "DeveloperTier", "deletes after 24 hours: hosting: 0.00 USD"),
        ((), "DeveloperTier", "deletes after 24 hours: hosting: 0.00 USD"),
    ],
)
def test_a_run_that_succeeds_is_deployed_as_it_was_quoted(
    settings: tuple[str, ...], sku: str, quoted: str, azure: World
) -> None:
    checked = azure.command(*AUTO, *settings, "--check")
    assert (checked.code, azure.inventory()) == (0, [])
    assert quoted in " ".join(checked.err.split())
    done = azure.command(*AUTO, *settings)
    assert done.code == 0, done.err
    assert deployed(azure) == [(tuned(azure), sku)]
    assert azure.difference() == ""
    assert f"try it:     trainer chat runs/{RUN}\n" in done.err
    chosen = {"DeveloperTier": "developer", "Standard": "standard"}[sku]
    assert azure.run.config().openai.deployment_sku == chosen
    assert azure.command("train", "--resume", RUN).code == 0
    assert len(deployed(azure)) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ("openai.deployment_sku=standard",),
            "backend.spend_cap: is not set, and backend.auto_deploy bills when",
        ),
        (
            ("openai.deployment_sku=standard", "backend.spend_cap=600"),
            "backend.spend_cap: is 600.00, the quote is 612.0",
        ),
        (("backend.kind=local",), "backend.auto_deploy: is set, and nothing is deployed by itself on this machine"),
        (("backend.kind=azureml",), "backend.auto_deploy: is set, and nothing is deployed by itself on Azure Machine"),
    ],
)
def test_what_may_not_be_deployed_so_is_refused_before_an_upload(
    settings: tuple[str, ...], said: str, azure: World
) -> None:
    done = azure.command(*AUTO, *settings)
    assert (done.code, azure.inventory()) == (2, [])
    assert any(error.startswith(f"error: {said}") for error in done.errors), done.err


def test_a_service_whose_models_answer_at_once_deploys_none(tmp_path: Path) -> None:
    with world(tmp_path, "openai") as made:
        message = one_message(made.command(*AUTO))
        assert message.startswith("error: backend.auto_deploy: is set, and a tuned model answers at once on this serv")
        assert made.inventory() == []


def test_a_missing_right_to_deploy_is_told_before_an_upload(azure: World) -> None:
    azure.service.arm.may_deploy = False
    message = one_message(azure.command(*AUTO))
    assert message.startswith("error: backend.auto_deploy: is set, and you may not deploy there, expected a role with ")
    assert azure.inventory() == []


def test_a_deployment_that_fails_leaves_the_run_and_is_made_by_the_next_command(azure: World) -> None:
    azure.loopback.faults = [Fault("no", lambda request: request.method == "PUT", answer=status(403), times=9)]
    done = azure.command(*AUTO)
    assert (done.code, azure.run.state, deployed(azure)) == (1, "succeeded", [])
    assert "; its deployment failed: creating the deployment: " in done.err
    assert f"try again: train --resume runs/{RUN}" in done.err
    azure.loopback.faults = []
    assert azure.command("train", "--resume", RUN).code == 0
    assert deployed(azure) == [(tuned(azure), "DeveloperTier")]
    assert azure.difference() == ""


def test_a_deployment_that_was_deleted_is_not_made_again(azure: World) -> None:
    assert azure.command(*AUTO).code == 0
    assert azure.command("teardown", RUN, "--yes").code == 0
    assert azure.command("train", "--resume", RUN).code == 0
    assert deployed(azure) == []


def test_looking_at_a_run_deploys_nothing_and_resuming_it_does(azure: World) -> None:
    done = azure.command(*AUTO, "--detach")
    assert "its model is deployed once it has succeeded and that command" in done.err
    azure.service.advance(1000)
    assert "agreed to with the run, and not made yet: trainer resume" in azure.command("show", RUN).out
    assert deployed(azure) == []
    assert azure.command("resume", RUN).code == 0
    assert deployed(azure) == [(tuned(azure), "DeveloperTier")]


def test_a_price_above_the_cap_at_the_end_is_not_paid(azure: World) -> None:
    assert azure.command(*AUTO, *STANDARD, "--detach").code == 0
    azure.service.advance(1000)
    config = azure.run.path / "config.yaml"
    config.write_text(config.read_text().replace("spend_cap: 700.0", "spend_cap: 600.0"))
    done = azure.command("train", "--resume", RUN)
    assert (done.code, deployed(azure)) == (1, [])
    assert "backend.spend_cap: is 600.00, the quote is 612.0" in done.err
    assert f"deploy it by hand: trainer deploy runs/{RUN}" in done.err


def test_following_a_detached_run_to_its_end_deploys_it(azure: World) -> None:
    assert azure.command(*AUTO, "--detach").code == 0
    assert azure.command("logs", RUN, "--follow").code == 0
    assert deployed(azure) == [(tuned(azure), "DeveloperTier")]


def test_a_deployment_that_azure_could_not_make_is_no_success_the_second_time(azure: World) -> None:
    azure.service.arm.fails_with = "Failed to load LoRA"
    assert azure.command(*AUTO).code == 1
    azure.service.arm.fails_with = None
    for words in (("train", "--resume", RUN), ("logs", RUN, "--follow")):
        again = azure.command(*words)
        assert (again.code, "its deployment failed: deployment 'glossary': is Failed" in again.err) == (1, True)
    [deployment] = azure.service.state.deployments.values()
    deployment.state = "Succeeded"
    assert azure.command("train", "--resume", RUN).code == 0
    assert azure.command("logs", RUN, "--follow").code == 0


def test_following_a_run_ends_as_its_deployment_did(azure: World) -> None:
    azure.service.arm.fails_with = "Failed to load LoRA"
    assert azure.command(*AUTO, "--detach").code == 0
    done = azure.command("logs", RUN, "--follow")
    assert (done.code, f"try again: train --resume runs/{RUN}" in done.err) == (1, True)


def test_the_cap_holds_for_the_dearest_price_at_the_end_too(azure: World) -> None:
    prices = ("openai.deployment_sku=standard", "openai.hosting_price=1.0")
    checked = azure.command(*AUTO, *prices, "backend.spend_cap=400", "--check")
    assert (checked.code, "612.02 USD by the dearest" in checked.err) == (2, True)
    assert "1.00 (the config's own); a spend cap is compared with the dearest" in " ".join(checked.err.split())
    assert azure.command(*AUTO, *prices, "backend.spend_cap=700", "--detach").code == 0
    azure.service.advance(1000)
    config = azure.run.path / "config.yaml"
    config.write_text(config.read_text().replace("spend_cap: 700.0", "spend_cap: 400.0"))
    done = azure.command("train", "--resume", RUN)
    assert (done.code, deployed(azure)) == (1, [])
    assert "612.0" in done.err


def test_the_ledger_quotes_the_job_without_its_deployment(azure: World) -> None:
    assert azure.command(*AUTO, *STANDARD, "--detach").code == 0
    [entry] = Ledger(azure.run.path).billing()
    assert entry.thing.bills == "by the trained token until it ends, quoted at 0.01 USD"


def test_what_was_settled_with_the_run_deploys_it_and_what_was_not_does_not(azure: World) -> None:
    azure.service.arm.limit = 0
    checked = json.loads(azure.command(*AUTO, "--check", "--format", "json").out)
    assert len(checked["doubts"]) == 1
    assert azure.command(*AUTO).code == 2
    azure.patches = {"trainer.cli.train.settle": lambda doubts: None}
    done = azure.command(*AUTO)
    assert azure.run.status()["settled"] == checked["doubts"]
    assert "its deployment failed: creating the deployment: " in done.err, "Azure is asked, and refuses"
    azure.service.arm.limit = 250
    assert azure.command("train", "--resume", RUN).code == 0
    assert deployed(azure) == [(tuned(azure), "DeveloperTier")]


def test_a_check_asks_for_account_quotas_and_each_page_of_prices_once(azure: World) -> None:
    assert azure.command(*AUTO, *STANDARD, "--check").code == 0
    asked = Counter(
        f"{request.path} {request.query.get('$skip', '')}"
        for request in azure.loopback.requests
        if request.host in ("management.azure.com", HOST)
    )
    assert {path.rstrip("/ ").rpartition("/")[2] for path in asked} >= {ACCOUNT, "usages", "prices", "prices 10"}
    assert set(asked.values()) == {1}, asked


def test_a_name_that_is_taken_is_refused_before_the_training_is_paid(azure: World) -> None:
    now, sku = azure.service.state.clock.now, {"name": "Standard", "capacity": 10}
    body = {"sku": sku, "properties": {"model": {"name": "gpt-4o", "format": "OpenAI"}}}
    azure.service.state.deployments[RUN] = Deployment(RUN, body, now, now, "Succeeded")
    message = one_message(azure.command(*AUTO))
    assert message.startswith("error: run.name: 'glossary' would be deployed as 'glossary', which exists in ")
    assert not azure.run.path.exists()


def test_who_follows_beside_the_one_that_deploys_does_not_call_it_a_failure(azure: World) -> None:
    assert azure.command(*AUTO, "--detach").code == 0
    azure.service.advance(1000)
    assert azure.command("show", RUN).code == 0

    def locked(*_: object) -> None:
        raise RunInUse(RUN, "is in use by process 1", "wait for it")

    azure.patches = {"trainer.backends.openai.backend.locked": locked}
    with azure.surroundings():
        outcome = OpenAIService().follow(azure.run, lambda message: None)
    assert (outcome.exit_code, deployed(azure)) == (ExitCode.DONE, [])
    assert "deployment_error" not in azure.run.status()
