"""Whatever goes wrong between us and the service: nothing twice, nothing unwritten, and one message or success."""

import logging
from collections.abc import Iterator

import pytest

from tests.loopback import FAULTS, Fault
from tests.openai_service.cells import LASTING, run_cell
from tests.openai_service.deviations import unexplained
from tests.openai_service.operations import OPERATIONS, Operation, Stages
from tests.openai_service.plain_sdk import jobs_created
from tests.openai_service.world import World, world

REPRESENTATIVES = ("reset after", "403", "500 after", "an HTML page with 200")
SHORT = [fault for fault in FAULTS if fault.name in REPRESENTATIVES]
Place = tuple[World, Stages]


@pytest.fixture(scope="module", params=["openai", "azure"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    logging.disable(logging.WARNING)
    with world(tmp_path_factory.mktemp(request.param), request.param) as made:
        yield made, Stages(made)
        assert unexplained(made.flavour, made.contract.findings) == []
    logging.disable(logging.NOTSET)


def check(place: Place, operation: Operation, fault: Fault) -> None:
    made, stages = place
    if made.flavour not in operation.flavours:
        pytest.skip(f"{made.flavour} has no such operation")
    assert run_cell(made, stages, operation, fault).problems == ()


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_a_fault_of_each_class_in_each_operation(place: Place, operation: Operation) -> None:
    made, _ = place
    if made.flavour == "openai" and "azure" in operation.flavours:
        pytest.skip("is the same on Azure; the whole matrix has both")
    for fault in SHORT[:2] if operation.stage == "started" else SHORT:  # following a job to its end takes longest
        check(place, operation, fault)


@pytest.mark.long
@pytest.mark.parametrize("fault", [*FAULTS, *LASTING], ids=lambda fault: fault.name)
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_every_fault_in_every_operation(place: Place, operation: Operation, fault: Fault) -> None:
    check(place, operation, fault)


def test_the_plain_sdk_creates_two_jobs_where_an_answer_is_lost(place: Place) -> None:
    rows = (place[0].folder / "train.jsonl").read_bytes()
    lost = next(fault for fault in FAULTS if fault.name == "500 after")
    assert jobs_created(lost, rows) == (2, "a job")
