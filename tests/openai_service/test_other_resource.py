"""A tuned model deployed in another region and subscription: planned, priced, made, asked and removed there."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import Fault, status
from tests.openai_service.arm import GROUP, TARGET_GROUP, TARGET_SUBSCRIPTION, Other
from tests.openai_service.deviations import unexplained
from tests.openai_service.operations import DEPLOY, FOLLOW, START
from tests.openai_service.service import KEY
from tests.openai_service.state import ACCOUNT, TARGET
from tests.openai_service.world import RUN, World, one_message, world
from trainer.runs.ledger import Ledger

SHORT = f"{TARGET_SUBSCRIPTION}/{TARGET_GROUP}/{TARGET}"
THERE = ("deploy", RUN, "--name", "far", "--sku", "global-standard", "--resource", SHORT)


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, "azure") as found:
        assert found.command(*START).code == 0
        assert found.command(*FOLLOW).code == 0
        yield found
        assert unexplained("azure", found.contract.findings) == []


def deployments(made: World) -> list[str]:
    return sorted(made.service.state.deployments)


def flat(text: str) -> str:
    return " ".join(text.split())


def test_a_deployment_there_is_shown_with_source_and_target_and_priced_for_its_region(azure: World) -> None:
    done = azure.command(*THERE, "--check")
    told = flat(done.err)
    assert (done.code, deployments(azure)) == (0, [])
    assert f"source {ACCOUNT}, {GROUP} of 11111111-2222-3333-4444-555555555555, which has trained it" in told
    assert f"target {TARGET} in eastus2, {TARGET_GROUP} of {TARGET_SUBSCRIPTION}; https://{TARGET}.openai.azure" in told
    assert "the first hour: 2.55 USD" in told, "1.70 in swedencentral"
    assert re.search(r"prices\.azure\.com on [0-9-]+, eastus2", told)
    assert "ready to deploy: nothing has been created and nothing bills" in done.out


def test_it_is_made_asked_listed_and_removed_where_it_is(azure: World) -> None:
    done = azure.command(*THERE, "--yes")
    assert (done.code, done.errors) == (0, []), done.err
    assert deployments(azure) == [f"{TARGET}/far"]
    [deployment] = azure.service.state.deployments.values()
    source = deployment.body["properties"]["model"]["source"]
    assert source.endswith(f"/resourceGroups/{GROUP}/providers/Microsoft.CognitiveServices/accounts/{ACCOUNT}")
    [entry] = Ledger(azure.run.path).billing()
    assert (entry.thing.place, entry.facts["hourly"]) == (Other().id, pytest.approx(2.55))
    assert azure.difference() == ""
    assert f"try it: trainer chat runs/{RUN} --endpoint {TARGET}/far" in flat(done.err)
    for words in ((), ("--endpoint", f"{TARGET}/far"), ("--endpoint", "far")):
        azure.loopback.requests.clear()
        assert azure.command("chat", RUN, "What is train term 3?", *words).out.startswith("Term 3 of train")
        assert {request.host for request in azure.loopback.requests} == {f"{TARGET}.openai.azure.com"}
    listed = json.loads(azure.command("endpoints", "--format", "json").out)["endpoints"]
    assert [(each["name"], each["url"]) for each in listed] == [
        (f"{TARGET}/far", f"https://{TARGET}.openai.azure.com/openai/v1/chat/completions")
    ]
    assert "2.55 USD/h" in listed[0]["cost"]
    assert azure.command("teardown", RUN, "--everything", "--yes").code == 0
    assert azure.inventory() == []


def test_the_key_of_the_run_s_own_resource_is_not_sent_to_another_one(azure: World) -> None:
    azure.environment["AZURE_OPENAI_API_KEY"] = KEY
    assert azure.command(*THERE, "--yes").code == 0
    assert azure.command("chat", RUN, "What is train term 3?").out.startswith("Term 3 of train")


def test_deployments_of_one_name_in_two_resources_are_told_apart(azure: World) -> None:
    assert azure.command("deploy", RUN, "--name", "far", "--yes").code == 0
    assert azure.command(*THERE, "--yes").code == 0
    assert deployments(azure) == [f"{TARGET}/far", "far"]
    for name, host in (("far", ACCOUNT), (f"{TARGET}/far", TARGET)):
        azure.loopback.requests.clear()
        assert azure.command("chat", RUN, "What is train term 3?", "--endpoint", name).code == 0
        assert {request.host for request in azure.loopback.requests} == {f"{host}.openai.azure.com"}
    assert azure.command("teardown", RUN, "--yes").code == 0
    assert deployments(azure) == []


def test_one_that_an_answer_was_lost_for_is_looked_up_there_and_not_made_twice(azure: World) -> None:
    lost = Fault("lost", lambda request: request.method == "PUT", commits=True, answer=status(500))
    azure.loopback.faults = [lost.fresh(lost.match)]
    done = azure.command(*THERE, "--yes")
    assert (done.code, deployments(azure)) == (0, [f"{TARGET}/far"])
    puts = [request for request in azure.loopback.requests if request.method == "PUT"]
    assert len(puts) == 1
    assert azure.difference() == ""


def test_what_stands_in_the_way_there_is_told_before_anything_is_made(azure: World) -> None:
    other = azure.service.arm.other
    other.kind, other.may_deploy = "TextAnalytics", False
    done = azure.command(*THERE, "--yes")
    assert (done.code, deployments(azure)) == (2, [])
    kind, right = done.errors
    assert f"--resource: {TARGET!r}: is a resource of kind 'TextAnalytics', expected OpenAI or AIServices" in kind
    assert f"--resource: {TARGET!r}: you may not deploy there, expected a role with Microsoft.Cognitive" in right


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{TARGET_SUBSCRIPTION}/{TARGET_GROUP}/nobody", "'nobody' is not found in 'far-group'"),
        ("a/b/c/d", "is 'a/b/c/d', expected ACCOUNT, GROUP/ACCOUNT, SUBSCRIPTION/GROUP/ACCOUNT or a resource id"),
        ("a b", "is 'a b', expected ACCOUNT, GROUP/ACCOUNT,"),
    ],
)
def test_a_resource_that_is_none_is_refused(text: str, said: str, azure: World) -> None:
    done = azure.command(*THERE[:-1], text, "--yes")
    assert (done.code, deployments(azure)) == (2, [])
    assert one_message(done).startswith(f"error: --resource: {said}")


@pytest.mark.parametrize("is_guest", [False, True])
def test_a_resource_of_another_tenant_is_refused(is_guest: bool, azure: World) -> None:
    other = azure.service.arm.other
    other.tenant, other.token_is_enough = "33333333-3333-3333-3333-333333333333", is_guest
    done = azure.command(*THERE, "--yes")
    assert (done.code, deployments(azure)) == (2, [])
    assert "is in another tenant than 'demo-openai', expected the same one: between tenants Azure wants" in done.err


def test_quota_is_that_of_the_other_region(azure: World) -> None:
    azure.service.arm.other.limit = 20
    message = one_message(azure.command(*THERE, "--capacity", "30", "--yes"))
    assert "--capacity: is 30, expected at most 20" in message


def test_a_spend_cap_holds_for_the_price_there(azure: World) -> None:
    config = azure.run.path / "config.yaml"
    config.write_text(re.sub(r"spend_cap: .*", "spend_cap: 2.0", config.read_text()))
    assert azure.command(*DEPLOY[:-1], "--sku", "global-standard", "--check").code == 0
    assert "the quote is 2.55" in one_message(azure.command(*THERE, "--check"))


def test_the_run_s_own_resource_by_its_name_is_no_other_one(azure: World) -> None:
    done = azure.command(*THERE[:-1], ACCOUNT, "--yes")
    assert (done.code, deployments(azure)) == (0, ["far"])
    [deployment] = azure.service.state.deployments.values()
    assert "source" not in deployment.body["properties"]["model"]


COPY = (*THERE, "--checkpoint", "6", "--copy")


def test_a_checkpoint_is_copied_once_and_deployed_there_without_its_source(azure: World) -> None:
    checked = azure.command(*COPY, "--check")
    assert (checked.code, azure.service.state.num_copied) == (0, 0)
    assert "made first; no call deletes a copy" in flat(checked.err)
    for _ in range(2):
        assert azure.command(*COPY, "--yes").code == 0
    assert (azure.service.state.num_copied, deployments(azure)) == (1, [f"{TARGET}/far"])
    [deployment] = azure.service.state.deployments.values()
    assert "source" not in deployment.body["properties"]["model"]
    assert azure.difference() == ""
    told = azure.command("teardown", RUN, "--everything", "--yes").err
    assert f"in {TARGET}: stays, as no call deletes a copy, and no list shows it; it costs nothing" in flat(told)
    assert [kind for kind, _ in azure.inventory()] == ["copy"]
    assert azure.difference() == ""


def test_a_copy_that_fails_is_told_with_what_it_needs_and_made_again_by_the_next_command(azure: World) -> None:
    azure.service.copies.fails = True
    message = one_message(azure.command(*COPY, "--yes"))
    assert "failed, expected a copy; the resource that has trained it needs a user-assigned identity" in message
    assert (deployments(azure), azure.difference()) == ([], "")
    azure.service.copies.fails = False
    assert azure.command(*COPY, "--yes").code == 0
    assert azure.difference() == ""


def test_what_a_copy_needs_is_told_before_it_is_made(azure: World) -> None:
    azure.service.arm.other.is_public, azure.service.arm.has_identity = False, False
    errors = azure.command(*COPY, "--yes").errors
    assert len(errors) == 2
    assert "--copy: 'demo-target' has no public network access, expected it for a copy" in errors[0]
    assert "--copy: the resource that has trained it has no user-assigned identity" in errors[1]
    azure.service.arm.other.is_public, azure.service.arm.has_identity = True, True
    azure.service.copies.num_jobs = 0
    assert "--copy: 'demo-target' has tuned nothing yet, expected one job" in one_message(azure.command(*COPY, "--yes"))
    alone = azure.command("deploy", RUN, "--copy", "--yes").errors
    assert ["is for another resource" in alone[0], "expected --checkpoint" in alone[1]] == [True, True]
    assert (azure.service.state.num_copied, deployments(azure)) == (0, [])


def test_openai_s_own_service_deploys_nowhere(tmp_path: Path) -> None:
    with world(tmp_path, "openai") as made:
        assert made.command(*START).code == 0
        assert made.command(*FOLLOW).code == 0
        assert "nothing needs deploying here" in one_message(made.command(*THERE, "--yes"))
