"""What Azure ML's words mean for a run."""

import pytest
from azure.ai.ml._restclient.arm_ml_service.models import JobStatus

from trainer.backends.azureml.follow import FINAL, end_of, is_final, state_of
from trainer.backends.azureml.workspace import word_of


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


def test_the_nodes_own_error_is_what_people_read() -> None:
    assert end_of("Failed", {"state": "failed", "error": "the loss is nan"}, "UserError")[1] == "the loss is nan"
