"""What Azure ML's words mean for a run."""

from pathlib import Path

import pytest
from azure.ai.ml._restclient.arm_ml_service.models import JobStatus

from trainer.backends.azureml.follow import FINAL, end_of, is_final, outcome, state_of
from trainer.backends.azureml.image import with_advice
from trainer.backends.azureml.workspace import word_of
from trainer.config.schema import RunConfig
from trainer.runs import create_run


def test_every_word_of_the_sdk_has_a_meaning_but_unknown() -> None:
    known = {word_of(status) for status in JobStatus} - {"Unknown"}
    assert {word for word in known if state_of(word, "validating_files") == "validating_files"} == set()
    assert {word for word in known if is_final(word)} == FINAL


def test_a_word_of_tomorrow_leaves_the_run_as_it_was() -> None:
    assert state_of("Teleporting", "running") == "running"
    assert not is_final("Teleporting")


@pytest.mark.parametrize(
    ("status", "node", "reason", "state"),
    [
        ("Completed", {"state": "succeeded"}, "", "succeeded"),
        ("Completed", {}, "", "failed"),
        ("Completed", {"state": "running"}, "", "failed"),
        ("Canceled", {"state": "running", "step": 3}, "", "cancelled"),
        ("Failed", {"state": "failed", "error": "the loss is nan"}, "UserError", "failed"),
        ("Failed", {"state": "paused", "step": 3}, "UserError: exit code 75", "paused"),
        ("Failed", {"state": "running", "step": 3}, "NodeLost", "paused"),
        ("Failed", {"state": "running"}, "UserError", "failed"),
        ("Failed", {}, "PreemptionError: the node was preempted", "paused"),
        ("Failed", {}, "ImageBuildFailure", "failed"),
    ],
)
def test_how_a_run_ends(status: str, node: dict[str, object], reason: str, state: str) -> None:
    found, told = end_of(status, node, reason)
    assert found == state
    assert told or state in ("succeeded", "cancelled")


def test_a_run_that_was_not_followed_ends_with_the_lines_that_its_job_has_printed(tmp_path: Path) -> None:
    values = {"model": {"base": "x"}, "data": {"train": "a.jsonl"}, "run": {"root": str(tmp_path), "name": "one"}}
    run = create_run(RunConfig.model_validate(values | {"backend": {"kind": "azureml"}}))
    (run.path / "output.log").write_text("Traceback\nValueError: no\n")
    run.set_status("failed", error="exit code 1", job="one-1", log_of="one-1")
    said = f"run 'one' has failed: exit code 1; see {run.path / 'output.log'}"
    assert outcome(run, "").summary == f"{said}\nits output ended with:\n  Traceback\n  ValueError: no"
    assert outcome(run, "one-1").summary == said


@pytest.mark.parametrize(
    ("reason", "way_out"),
    [
        ("ImageBuildFailure: the build has failed", "docs/azureml.md"),
        ("ImageBuildFailure: toomanyrequests: You have reached your pull rate limit.", "azureml.deployment.vllm_image"),
        ("UserError: exited with status code 1", ""),
    ],
)
def test_a_build_that_fails_comes_with_the_way_out(reason: str, way_out: str) -> None:
    told = with_advice(reason)
    assert told.startswith(reason)
    assert (way_out in told, told == reason) == (True, not way_out)


def test_the_nodes_own_error_is_what_people_read() -> None:
    assert end_of("Failed", {"state": "failed", "error": "the loss is nan"}, "UserError")[1] == "the loss is nan"
