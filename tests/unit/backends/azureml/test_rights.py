"""What roles allow: each takes away only from what it gives itself."""

from typing import Any

import pytest

from trainer.backends.arm import allows
from trainer.backends.azureml.machines import MACHINES, find_machine
from trainer.backends.azureml.survey import NEEDED_RIGHTS

WRITE = "Microsoft.MachineLearningServices/workspaces/jobs/write"


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ([{"actions": ["*"], "notActions": []}], True),
        ([{"actions": ["*/read"], "notActions": []}], False),
        ([{"actions": ["microsoft.machinelearningservices/workspaces/*/WRITE"]}], True),
        ([{"actions": ["*"], "notActions": ["Microsoft.MachineLearningServices/workspaces/jobs/*"]}], False),
        ([{"actions": ["*"], "notActions": [WRITE]}, {"actions": [WRITE], "notActions": []}], True),
        ([{"actions": None, "notActions": None}], False),
        ([], False),
    ],
)
def test_an_action_is_allowed_by_one_role(roles: list[dict[str, Any]], expected: bool) -> None:
    assert allows(roles, WRITE) is expected


def test_a_contributor_may_do_everything_that_a_run_needs() -> None:
    contributor = {
        "actions": ["*"],
        "notActions": ["Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write"],
    }
    assert [action for action in NEEDED_RIGHTS if not allows([contributor], action)] == []


def test_machines_are_found_however_their_name_is_written() -> None:
    assert [find_machine(machine.name.upper()) for machine in MACHINES] == list(MACHINES)
    assert find_machine("Standard_D2") is None
    assert {machine.gpu.name for machine in MACHINES if not machine.gpu.has_bfloat16} == {"T4", "V100"}
    assert {machine.name for machine in MACHINES if machine.retired} == {
        machine.name for machine in MACHINES if machine.gpu.name == "V100"
    }
