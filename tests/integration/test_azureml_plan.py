"""The plan of a deployment: a gated base of the hub and the caller's rights, before anything is made.

The hub answers on this machine, which has a copy of the model.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.hub import COMMIT, fetched
from tests.integration.azure_twin import resources
from tests.integration.azure_twin.fixtures import azure, here  # noqa: F401
from tests.integration.azure_twin.roles import SECRETS_USER
from tests.integration.azure_twin.twin import Twin
from tests.integration.azure_twin.world import GROUP_ID, REGION
from tests.integration.test_azureml_deploy import STORE, settings_of
from tests.loopback import Fault, Loopback, Request, Response, status
from trainer.backends.azureml.backend import AzureML
from trainer.backends.contract import DeploymentOptions
from trainer.config import RunConfig
from trainer.errors import ConfigError
from trainer.model.tiny import tiny_base
from trainer.runs import Run
from trainer.runs.manifest import PinnedBase

HUB, MODEL = "huggingface.co", "someone/Gated"
ENDPOINT, VAULT = "support", "https://kv.vault.azure.net"
REFUSED = "azureml.deployment.include_base: is false, someone/Gated needs a token of the hub"
ML = "Microsoft.MachineLearningServices/workspaces"


@pytest.fixture
def asked(here: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Paths that the hub was asked for; its only model is gated."""
    fetched(tiny_base(), MODEL, tmp_path / "hub", monkeypatch)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)

    def hub(request: Request) -> Response:
        return Response(200, {"id": MODEL, "gated": "manual"})

    with Loopback(hub, here.proxy.authority.context(HUB)) as service:
        here.proxy.routes[HUB] = service.port
        paths: list[str] = []
        yield paths
        paths += [request.path for request in service.requests]
        del here.proxy.routes[HUB]
        assert set(paths) == {f"/api/models/{MODEL}"}


@pytest.fixture(params=[COMMIT])
def run(request: pytest.FixtureRequest, asked: list[str], tuned: Run, tmp_path: Path) -> Run:
    """A finished run on the gated model, pinned by its commit."""
    shutil.copytree(tuned.path, tmp_path / "runs" / "tuned")
    made = Run(tmp_path / "runs" / "tuned")
    made.write_manifest(replace(made.manifest(), base=PinnedBase(MODEL, request.param, None)))
    return made


def plan(run: Run, settings: RunConfig, name: str | None = None) -> Any:
    return AzureML().plan_deployment(run, settings, DeploymentOptions(name=name), print)


def outcomes(planned: Any) -> dict[str, tuple[str, str]]:
    return {check.what: (check.outcome, check.found) for check in planned.checks}


@pytest.mark.parametrize("run", [COMMIT, None], indirect=True, ids=["pinned", "of version 0.1.0"])
def test_a_gated_base_comes_along_unless_a_config_forbids_it(
    here: Twin,
    run: Run,
) -> None:
    planned = plan(run, settings_of(run))
    assert planned.details.with_base is True
    assert dict(planned.rows)["model"].endswith(f"base {MODEL} included")
    assert outcomes(planned)["base"] == ("ok", "included in the upload")
    with pytest.raises(ConfigError) as refused:
        plan(run, settings_of(run, include_base=False))
    assert [problem.partition(", and ")[0] for problem in refused.value.problems] == [REFUSED]
    assert here.arm.created == []


@pytest.mark.parametrize(("include", "comes"), [("auto", True), (False, False)])
def test_a_model_is_registered_with_its_gated_base(
    here: Twin,
    run: Run,
    include: Any,
    comes: bool,
) -> None:
    AzureML().register(run, settings_of(run, include_base=include), None, print)
    names = here.blobs.names(here.arm.containers[STORE], "LocalUpload/")
    assert any(name.endswith("/base/config.json") for name in names) is comes


@pytest.mark.parametrize(
    ("vault", "given", "may"),
    [
        ({"enableRbacAuthorization": True}, [SECRETS_USER], True),
        ({"enableRbacAuthorization": True}, [], False),
        ({"accessPolicies": [{"objectId": "PRINCIPAL", "permissions": {"secrets": ["Get"]}}]}, [], True),
        ({"accessPolicies": [{"objectId": "PRINCIPAL", "permissions": {"secrets": ["list"]}}]}, [], False),
        ({"accessPolicies": [{"objectId": "another", "permissions": {"secrets": ["get"]}}]}, [SECRETS_USER], False),
        (None, [SECRETS_USER], False),
    ],
)
def test_an_endpoint_whose_identity_reads_the_vault_downloads_a_gated_base(
    here: Twin,
    run: Run,
    vault: dict[str, Any] | None,
    given: list[str],
    may: bool,
) -> None:
    path = f"onlineEndpoints/{ENDPOINT}"
    there = resources.endpoint(path, {"location": REGION, "properties": {"authMode": "Key"}})
    there["properties"]["provisioningState"] = "Succeeded"
    here.arm.resources[path], principal = there, there["identity"]["principalId"]
    if vault is not None:
        policies = [
            policy | {"objectId": principal if policy["objectId"] == "PRINCIPAL" else policy["objectId"]}
            for policy in vault.get("accessPolicies", [])
        ]
        here.arm.roles.vaults["kv"] = vault | {"accessPolicies": policies}
    here.arm.roles.given = [(principal, GROUP_ID, role) for role in given]
    settings = settings_of(run, include_base=False)
    settings = settings.model_copy(update={"azureml": settings.azureml.model_copy(update={"key_vault": VAULT})})
    if may:
        found = f"{MODEL} needs a token, which the endpoint's identity may read"
        assert outcomes(plan(run, settings, ENDPOINT))["base"] == ("ok", found)
    else:
        with pytest.raises(ConfigError, match="the endpoint's identity may read no key vault"):
            plan(run, settings, ENDPOINT)
    assert here.arm.created == []


@pytest.mark.parametrize(
    ("mine", "lacking"),
    [
        (["*/read", f"{ML}/onlineEndpoints/*"], [f"{ML}/models/versions/write"]),
        (["*/read", "*/write"], [f"{ML}/onlineEndpoints/delete", f"{ML}/onlineEndpoints/deployments/delete"]),
    ],
)
def test_who_may_not_deploy_is_told_what_is_lacking(
    here: Twin,
    tuned: Run,
    mine: list[str],
    lacking: list[str],
) -> None:
    here.arm.roles.mine = mine
    with pytest.raises(ConfigError) as refused:
        plan(tuned, settings_of(tuned))
    assert refused.value.problems == (
        f"azureml.workspace: you may not {', '.join(lacking)}, expected the role AzureML Data Scientist; ask the "
        "workspace's owner",
    )


def test_rights_that_cannot_be_read_are_told_with_the_reason(
    here: Twin,
    tuned: Run,
) -> None:
    assert outcomes(plan(tuned, settings_of(tuned)))["rights"] == ("ok", "to register, deploy and delete")
    permissions = Fault("403", lambda request: request.path.endswith("/permissions"), answer=status(403), times=99)
    here.service.faults = [permissions]
    outcome, why = outcomes(plan(tuned, settings_of(tuned)))["rights"]
    assert (outcome, why.partition(": ")[0]) == ("not looked at", "reading your rights in the workspace")
    assert "refused with 403 for a test" in why
