"""Nothing is made twice and nothing is forgotten, whatever happens to a call, an answer or this process."""

import pytest

pytest.importorskip("azure.ai.ml")

from tests.integration.azure_twin.commands import World
from tests.integration.azure_twin.fixtures import azure
from tests.integration.azure_twin.kills import boundaries, every_kill, kill_at
from tests.integration.azure_twin.matrix import run_cell
from tests.integration.azure_twin.operations import OPERATIONS, Operation, Stages
from tests.integration.azure_twin.twin import Twin
from tests.loopback import FAULTS, Fault

pytestmark = pytest.mark.filterwarnings("ignore")
__all__ = ["azure"]

# One of each class: unknown whether it was done, refused, not an answer, and wait.
SHORT = (
    ("job", "reset after"),
    ("job", "500 before"),
    ("job", "an HTML page with 200"),
    ("data", "429 Retry-After 1e9"),
    ("environment", "403"),
    ("get", "truncated body"),
    ("cancel", "503 after"),
    # A wrong word, on which something that bills would be forgotten; a deployment is made first.
    ("delete deployment", "404"),
)
FAULT = {fault.name: fault for fault in FAULTS}
OPERATION = {operation.name: operation for operation in OPERATIONS}


@pytest.fixture(scope="module")
def stages(azure: Twin, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return Stages(World(azure, tmp_path_factory.mktemp("faults") / "user"))


@pytest.mark.parametrize(("operation", "fault"), SHORT)
@pytest.mark.slow
def test_a_fault_is_got_over_or_told(operation: str, fault: str, stages: Stages) -> None:
    cell = run_cell(stages.world, stages, OPERATION[operation], FAULT[fault])
    assert (cell.happened, cell.problems) == (True, ())


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_fault_in_every_operation(operation: Operation, fault: Fault, stages: Stages) -> None:
    assert run_cell(stages.world, stages, operation, fault).problems == ()


@pytest.mark.slow
def test_a_submission_that_is_killed_when_its_job_is_made_makes_no_second_one(stages: Stages) -> None:
    requests = boundaries(stages.world, stages)
    (job,) = (number for number, request in enumerate(requests, 1) if request.startswith("PUT") and "/jobs/" in request)
    for after in (False, True):
        killed = kill_at(stages.world, stages, job, after)
        assert (killed.died, killed.code, killed.jobs, killed.problems) == (True, 0, 1, ())


@pytest.mark.long
def test_a_submission_that_is_killed_at_any_request_makes_one_job(stages: Stages) -> None:
    found = list(every_kill(stages.world, stages))
    assert len(found) > 20
    assert [killed for killed in found if not killed.died or killed.problems] == []
