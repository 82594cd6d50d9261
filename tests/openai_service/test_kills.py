"""A command that is killed at a request, and the command that goes on: one job, one file each, all in the ledger."""

from collections.abc import Iterator

import pytest

from tests.openai_service.kills import TRAINING, deaths_of, journeys_of, kill_at, requests_of
from tests.openai_service.operations import Stages
from tests.openai_service.world import World, world

Place = tuple[World, Stages]


@pytest.fixture(scope="module", params=["openai", "azure"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with world(tmp_path_factory.mktemp(request.param), request.param) as made:
        yield made, Stages(made)


def test_a_command_killed_where_it_creates_something_creates_it_once(place: Place) -> None:
    made, stages = place
    requests = requests_of(made, stages, TRAINING)
    paths = ("/files", "/fine_tuning/jobs")
    creating = [
        number for number, request in enumerate(requests) if request.startswith("POST") and request.endswith(paths)
    ]
    assert len(creating) == 3, "two files and a job"
    for number in creating[-2:]:
        for after in (False, True):
            assert kill_at(made, stages, TRAINING, number, after).problems == ()


@pytest.mark.long
def test_a_command_killed_at_any_request_goes_on(place: Place) -> None:
    made, stages = place
    for journey in journeys_of(made):
        assert [death for death in deaths_of(made, stages, journey) if death.problems] == []
