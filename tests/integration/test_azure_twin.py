"""The twin itself, asked by the unmodified SDK: its answers are read, and fit the published types."""

import os
from pathlib import Path

import pytest

from tests.integration.azure_twin.fixtures import azure, here
from tests.integration.azure_twin.twin import Twin
from tests.integration.azure_twin.world import GROUP, SUBSCRIPTION, WORKSPACE

pytest.importorskip("azure.ai.ml")
pytestmark = pytest.mark.filterwarnings("ignore")
__all__ = ["azure", "here"]


@pytest.mark.slow
def test_the_sdk_goes_through_a_jobs_and_a_deployments_life(here: Twin, tmp_path: Path) -> None:
    from azure.ai.ml import Input, MLClient, Output, command
    from azure.ai.ml.entities import (
        AmlCompute,
        CodeConfiguration,
        Environment,
        ManagedOnlineDeployment,
        ManagedOnlineEndpoint,
        Model,
    )
    from azure.identity import DefaultAzureCredential

    here.arm.add_compute("gpu", "Standard_NC4as_T4_v3")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text("print()")
    image = Environment(image="mcr.microsoft.com/azureml/minimal:1")
    client = MLClient(
        DefaultAzureCredential(), SUBSCRIPTION, GROUP, WORKSPACE, retry_total=0, polling_interval=0.1,
        show_progress=False, enable_telemetry=False,
    )  # fmt: skip
    job = command(
        name="one", code=str(tmp_path / "code"), command="echo ${{inputs.rows}}", environment=image, compute="gpu",
        inputs={"rows": Input(type="uri_folder", path=str(tmp_path / "code"))},
        outputs={"run": Output(type="uri_folder", path="azureml://datastores/workspaceblobstore/paths/a/b")},
    )  # fmt: skip
    assert client.jobs.create_or_update(job).status == "NotStarted"
    assert here.arm.billing() == ["jobs/one"]
    client.jobs.begin_cancel("one").wait()
    assert client.jobs.get("one").status == "Canceled"

    model = client.models.create_or_update(Model(name="m", path=str(tmp_path / "code"), type="custom_model"))
    assert model.version == "1"
    client.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="ep-one", auth_mode="key")).wait()
    deployment = ManagedOnlineDeployment(
        name="blue", endpoint_name="ep-one", model="m:1", environment=image, instance_type="Standard_DS3_v2",
        code_configuration=CodeConfiguration(code=str(tmp_path / "code"), scoring_script="score.py"), instance_count=1,
    )  # fmt: skip
    assert client.online_deployments.begin_create_or_update(deployment).result().provisioning_state == "Succeeded"
    endpoint = client.online_endpoints.get("ep-one")
    endpoint.traffic = {"blue": 100}
    client.online_endpoints.begin_create_or_update(endpoint).wait()
    assert client.online_endpoints.get("ep-one").traffic == {"blue": 100}
    assert client.online_endpoints.get_keys("ep-one").primary_key.startswith("key-")
    assert here.arm.billing() == ["onlineEndpoints/ep-one/deployments/blue"]
    client.online_endpoints.begin_delete("ep-one").wait()
    client.compute.begin_create_or_update(AmlCompute(name="mine", size="Standard_DS3_v2")).wait()
    assert here.arm.billing() == ["computes/mine"]
    client.compute.begin_delete("mine").wait()

    assert here.arm.billing() == []
    assert here.proxy.refused == []
    assert here.arm.types.findings == []
    if os.environ.get("TRAINER_SPECS"):
        assert here.arm.types.checked.total() > 20


def test_the_types_refuse_what_they_do_not_know(here: Twin) -> None:
    if not os.environ.get("TRAINER_SPECS"):
        pytest.skip("TRAINER_SPECS names no folder with Azure's types")
    types = type(here.arm.types)()
    body = {"properties": {"jobType": "Command", "command": "a", "environmentId": "b", "shm": 1, "status": "Running"}}
    types.check("workspaces/jobs", "2025-01-01-preview", body, answer=False)
    assert [finding.rpartition("request: ")[2] for finding in types.findings] == [
        ".properties.shm: unknown",
        ".properties.status: only in answers",
    ]
