"""One run's whole life on the twin of Azure ML: the commands are the product's, and training and serving are real."""

import os
from datetime import datetime
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.ml")

from tests.integration.azure_twin.blobs import Missing
from tests.integration.azure_twin.gpus import GPUs
from tests.integration.azure_twin.journey import CLUSTER, ENDPOINT, NAME, WAIT_SECONDS, Journey
from tests.integration.azure_twin.twin import Twin, twin, working_twin
from trainer.runs import Run
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


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_machine_whose_gpu_cannot_be_used_ends_the_run_within_a_minute(tmp_path: Path) -> None:
    """First a run's first machine, then the one that follows a pre-emption; neither run is submitted again."""
    unusable = GPUs(1, torch="2.13.0", cuda="13.0", starts=False)
    reason = "GPU: 0 can be used and the plan counts on 1; driver 535.274.02; torch 2.13.0, built for CUDA 13.0"
    try:
        with twin(tmp_path / "twin") as made:
            made.run_jobs(tmp_path / "nodes", tracking=None)
            assert made.nodes is not None
            made.nodes.gpus = lambda job, count: unusable
            journey = Journey(made, tmp_path / "user", print)
            output = journey.trainer("train", "--config", "azure.yaml", "--yes", expect=1)
            assert reason in output
            assert journey.run.state == "failed"
            begun, ended = map(str, made.nodes.times[journey.node().name])
            assert (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds() < 60
            assert not journey.stored_files(".yaml"), "nothing of the run was begun"

            made.nodes.gpus = lambda job, count: unusable if job.endswith("-2") else GPUs(count)
            process = journey.begin("train", "--config", "azure.yaml", "--yes", "run.name=later")
            journey.wait_until(journey.stored_checkpoints, "a checkpoint")
            made.nodes.preempt(journey.node().name, restart=False)
            output, _ = process.communicate(timeout=WAIT_SECONDS)
            later = Run(journey.run.path.with_name("later"))
            assert (process.returncode, later.state) == (1, "failed"), output
            assert str(later.status()["error"]).startswith(reason)
            jobs = [path for path in made.arm.created if path.startswith("jobs/later")]
            assert len(jobs) == 2, "the pre-empted job was submitted again, and the one without a GPU was not"
            made.nodes.stop()
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
