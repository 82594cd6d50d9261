"""One run's whole life on the twin of Azure ML: the commands are the product's, and training and serving are real."""

import os
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.ml")

from tests.integration.azure_twin.blobs import Missing
from tests.integration.azure_twin.journey import CLUSTER, ENDPOINT, NAME, WAIT_SECONDS, Journey
from tests.integration.azure_twin.twin import Twin, working_twin
from trainer.runs.ledger import Ledger

SECRETS = ("canary-client-secret", "key-")


@pytest.mark.slow
@pytest.mark.timeout(1500)  # the first time, environments are installed
def test_a_run_goes_from_a_config_to_an_answer_and_leaves_nothing(tmp_path: Path) -> None:
    try:
        with working_twin(tmp_path / "twin") as made:
            whole_life(made, Journey(made, tmp_path / "user", print))
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_job_that_is_started_again_on_another_machine_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    try:
        with working_twin(tmp_path / "twin") as made:
            journey = Journey(made, tmp_path / "user", print)
            process = journey.begin("train", "--config", "azure.yaml", "--yes")
            journey.wait_until(journey.stored_checkpoints, "a checkpoint")
            assert made.nodes is not None
            node = journey.node()
            made.nodes.preempt(node.name, restart=True)
            output, _ = process.communicate(timeout=WAIT_SECONDS)
            assert (process.returncode, journey.run.state) == (0, "succeeded"), output
            assert node.attempts == 2
            assert [path for path in made.arm.created if path.startswith("jobs/")] == [f"jobs/{node.name}"]
            assert any("resuming" in line for line in output.splitlines())
            steps = [int(row["step"]) for row in journey.run.results()]
            assert steps == sorted(set(steps))
    except Missing as missing:
        pytest.skip(str(missing))


def whole_life(twin: Twin, journey: Journey) -> None:
    """Through the loss of terminal and machine."""
    run, arm = journey.run, twin.arm
    journey.check()
    assert arm.inventory() == []

    step = journey.train_until_all_dies()
    journey.resume()
    assert run.state == "succeeded"
    first, second = sorted(path for path in arm.inventory() if path.startswith("jobs/"))
    assert [arm.resources[path]["properties"]["status"] for path in (first, second)] == ["Failed", "Completed"]
    assert any(event["data"].get("step") == step for event in run.events() if "resum" in event["message"])
    assert (run.adapter / "adapter_model.safetensors").is_file()
    assert run.report.joinpath("report.json").is_file()
    steps = [int(row["step"]) for row in run.results()]
    assert steps == sorted(set(steps)), "no step is there twice"

    logged = twin.plane.mlflow
    assert logged is not None
    assert logged.metrics(second.removeprefix("jobs/"))["train_loss"] == pytest.approx(run.results()[-1]["train_loss"])

    assert "resumed" in journey.look() or step
    from_a_model_to_nothing(twin, journey)


def from_a_model_to_nothing(twin: Twin, journey: Journey) -> None:
    run, arm = journey.run, twin.arm
    journey.register()
    journey.deploy()
    (deployment,) = (path for path in arm.billing() if "deployments" in path)
    assert deployment.startswith(f"onlineEndpoints/{ENDPOINT}/")
    assert arm.resources[f"onlineEndpoints/{ENDPOINT}"]["properties"]["traffic"][deployment.rsplit("/", 1)[1]] == 100
    assert unledgered(twin, journey) == set()
    assert journey.chat().strip()
    journey.tear_down()

    assert arm.inventory() == []
    assert arm.billing() == []
    assert Ledger(run.path).open() == []
    assert f"computes/{CLUSTER}" in arm.resources, "what others made stays"
    assert twin.proxy.refused == []
    assert arm.types.findings == []
    if os.environ.get("TRAINER_SPECS"):
        assert arm.types.checked.total() > 20
    for path in run.path.rglob("*"):
        if path.is_file():
            assert not [secret for secret in SECRETS if secret.encode() in path.read_bytes()], path

    journey.delete()
    assert not run.path.exists()
    assert twin.blobs.names(arm.containers["workspaceblobstore"], f"trainer/{NAME}") == []


def unledgered(twin: Twin, journey: Journey) -> set[str]:
    """What bills and is in no ledger."""
    known = {entry.thing.key for entry in Ledger(journey.run.path).open()}
    return {
        path for path in twin.arm.billing() if path.rsplit("/", 1)[1] not in {key.rsplit("/", 1)[-1] for key in known}
    }
