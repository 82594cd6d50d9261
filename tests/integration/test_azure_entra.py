"""An endpoint without keys: deployed, asked and talked to with tokens of Microsoft Entra."""

from pathlib import Path

import pytest

pytest.importorskip("azure.ai.ml")

from tests.commands import Done
from tests.entra import claims_of
from tests.integration.azure_twin.commands import RUN, World
from tests.integration.azure_twin.fixtures import azure
from tests.integration.azure_twin.operations import DEPLOY, TEARDOWN, Stages
from tests.integration.azure_twin.scoring import TOKEN_AUDIENCE
from tests.integration.azure_twin.twin import Twin

pytestmark = pytest.mark.filterwarnings("ignore")
__all__ = ["azure"]

ENDPOINT = "onlineEndpoints/glossary-one"
WITH_TOKENS = (*DEPLOY, "--config", "azure.yaml")


@pytest.fixture(scope="module")
def stages(azure: Twin, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return Stages(World(azure, tmp_path_factory.mktemp("entra") / "user"))


@pytest.fixture
def world(stages: Stages) -> World:
    """A trained run, and a config that asks for an endpoint without keys."""
    stages.enter("trained")
    config: Path = stages.world.folder / "azure.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("deployment: {", "deployment: {auth: entra, "), encoding="utf-8")
    return stages.world


def well(done: Done) -> str:
    assert (done.code, done.errors) == (0, []), done.err
    return done.out + done.err


@pytest.mark.long
def test_an_endpoint_with_tokens_is_deployed_talked_to_and_removed(world: World) -> None:
    arm, endpoints = world.twin.arm, world.twin.endpoints
    assert "with a token of Microsoft Entra" in well(world.command(*WITH_TOKENS))
    assert arm.resources[ENDPOINT]["properties"]["authMode"].lower() == "aadtoken"
    assert 100 in arm.resources[ENDPOINT]["properties"]["traffic"].values()
    assert well(world.command("chat", RUN, "What is a cassette?", "--endpoint", "any")).strip()
    audiences = {(claims_of(request) or {}).get("aud") for request in endpoints.requests}
    assert audiences == {TOKEN_AUDIENCE}, "no request carried anything else"
    assert not [request for request in world.twin.service.requests if request.path.lower().endswith("/listkeys")]
    well(world.command(*TEARDOWN))
    assert (arm.inventory(), world.ledger()) == ([], [])


@pytest.mark.long
def test_an_endpoint_that_takes_keys_is_not_made_one_that_takes_tokens(world: World) -> None:
    well(world.command(*DEPLOY))
    (error,) = world.command(*WITH_TOKENS).errors
    assert "azureml.deployment.auth: is 'entra', but the endpoint 'glossary-one' has 'key'" in error
