"""Answers of the resource manager: what roles allow, each takes away only from what it gives; names of regions."""

from typing import Any

import pytest

from trainer.backends.arm import allows, region_name
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


@pytest.mark.parametrize("location", ["eastus2", "East US 2", "EastUS2"])
def test_a_region_has_one_spelling(location: str) -> None:
    assert region_name(location) == "eastus2"


def test_a_contributor_may_do_everything_that_a_run_needs() -> None:
    contributor = {
        "actions": ["*"],
        "notActions": ["Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write"],
    }
    assert [action for action in NEEDED_RIGHTS if not allows([contributor], action)] == []
