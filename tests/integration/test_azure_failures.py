"""A job that fails says why wherever its run is looked at, and one that lost its machine gets another."""

import json

import pytest

pytest.importorskip("azure.ai.ml")

from tests.integration.azure_twin.commands import RUN, World
from tests.integration.azure_twin.fixtures import azure
from tests.integration.azure_twin.operations import Stages
from tests.integration.azure_twin.twin import Twin
from trainer.runs.lifecycle import LAST_LINES

pytestmark = pytest.mark.filterwarnings("ignore")
__all__ = ["azure"]

STD, BUILD = "user_logs/std_log.txt", "azureml-logs/20_image_build_log.txt"
EXITED = "Execution failed. User process 'python' exited with status code 1. Please check log file."
IMPORT = [*(f"line {number}" for number in range(30)), "Traceback (most recent call last):",
          '  File "node.py", line 1, in <module>', "ModuleNotFoundError: No module named 'trl'"]  # fmt: skip
PIP = ["Step 3/5 : RUN pip install", "ERROR: No matching distribution found for torch==9.9"]


@pytest.fixture(scope="module")
def stages(azure: Twin, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return Stages(World(azure, tmp_path_factory.mktemp("failures") / "user"))


@pytest.fixture
def world(stages: Stages) -> World:
    """A run whose job was submitted."""
    stages.enter("submitted", uploads=False)
    twin = stages.world.twin
    twin.plane.errors, twin.logs, twin.arm.run_job = None, {}, None
    return stages.world


def jobs(world: World) -> list[str]:
    return [path.removeprefix("jobs/") for path in world.twin.arm.created if path.startswith("jobs/")]


def tail_of(text: str) -> list[str]:
    """The lines below the heading, indented by two."""
    lines = text.splitlines()
    first = lines.index("its output ended with") + 1
    last = next((number for number in range(first, len(lines)) if not lines[number].startswith("  ")), len(lines))
    return [line[2:] for line in lines[first:last]]


@pytest.mark.parametrize(
    ("log", "printed", "code", "end"),
    [(STD, IMPORT, "UserError", ""), (STD, IMPORT, "UserError", "\n"), (BUILD, PIP, "ImageBuildFailure", "\n")],
    ids=["dies at import, killed within a line", "dies at import", "image cannot be built"],
)
def test_a_failure_shows_its_last_lines_in_every_command(
    world: World, log: str, printed: list[str], code: str, end: str
) -> None:
    job = jobs(world)[-1]
    world.twin.end_job(job, code, EXITED, {log: "\n".join(printed) + end})
    followed = world.command("logs", RUN, "--follow")
    looked, asked = world.command("logs", RUN), json.loads(world.command("logs", RUN, "--format", "json").out)
    shown, document = world.command("show", RUN), json.loads(world.command("show", RUN, "--format", "json").out)
    last = printed[-LAST_LINES:]
    assert followed.code == 1
    assert tail_of(followed.out) == tail_of(looked.out) == tail_of(shown.out) == last
    assert asked["output"] == document["output"] == last
    advice = "; docs/azureml.md says what to do by the last lines of the build's log" if log == BUILD else ""
    assert document["error"] == f"{code}: {EXITED.rstrip('.')}; its output ends: {printed[-1]}{advice}"
    assert document["error"] in followed.err


def test_whoever_follows_sees_the_output_once(world: World) -> None:
    job = jobs(world)[-1]
    world.twin.arm.run_job = lambda name: world.twin.end_job(name, "UserError", EXITED, {STD: "\n".join(IMPORT)})
    world.twin.end_job(job, "UserError", EXITED, {STD: "another attempt\n"})
    done = world.command("train", "--resume", RUN)
    assert (done.code, jobs(world)) == (1, [job, f"{job}-2"])
    assert done.err.count(IMPORT[-1]) == 2  # as the job printed it, and as the reason
    assert "its output ended with" not in done.err


def test_following_the_log_gives_a_lost_machine_another_job_and_ends_as_the_run_does(world: World) -> None:
    first = jobs(world)[-1]
    world.twin.arm.run_job = lambda name: world.twin.end_job(name, "UserError", EXITED, {STD: "\n".join(IMPORT)})
    world.twin.end_job(first, "PreemptionError", "The node was preempted.", {STD: "of the first job\n"})
    done = world.command("logs", RUN, "--follow")
    assert (done.code, jobs(world)) == (1, [first, f"{first}-2"])
    assert tail_of(done.out) == IMPORT[-LAST_LINES:]


def test_looking_gives_no_lost_machine_another_job(world: World) -> None:
    first = jobs(world)[-1]
    world.twin.end_job(first, "PreemptionError", "The node was preempted.", {})
    for words in (("logs", RUN), ("show", RUN), ("runs",)):
        assert world.command(*words).code == 0
    assert (jobs(world), world.run.state) == ([first], "paused")


def test_lines_of_an_earlier_job_are_not_the_end_of_a_later_one(world: World) -> None:
    job = jobs(world)[-1]
    world.twin.end_job(job, "UserError", EXITED, {STD: "\n".join(IMPORT)})
    world.command("show", RUN)
    world.twin.arm.run_job = lambda name: world.twin.end_job(name, "UserError", EXITED, {})
    assert world.command("train", "--resume", RUN, "--detach").code == 0
    shown = json.loads(world.command("show", RUN, "--format", "json").out)
    assert (shown["output"], shown["error"]) == ([], f"UserError: {EXITED}")


def test_events_of_the_job_stand_among_those_of_home_by_their_time(world: World) -> None:
    early = (
        '{"created_at": "2020-01-01T00:00:00.000+00:00", "level": "info", "type": "x", "message": "a", "data": {}}\n'
    )
    container = world.twin.arm.containers["workspaceblobstore"]
    stem = jobs(world)[0]
    world.twin.blobs.write(container, f"trainer/{stem}/{RUN}/events.jsonl", early.encode())
    document = json.loads(world.command("logs", RUN, "--format", "json").out)
    times = [event["created_at"] for event in document["events"]]
    assert times == sorted(times)
    assert document["events"][0]["message"] == "a"
    assert world.command("logs", RUN).out.splitlines()[0].startswith("2020-01-01")
