"""SIGKILL at every request's boundary of a command, and the command that goes on.

The command runs in a forked child with everything imported, so that a kill costs a fraction of a second; its requests
arrive at the parent's service, which ends it before or after it has acted.
"""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.loopback import Kill, Request
from tests.openai_service.cells import duplicates_in
from tests.openai_service.operations import DEPLOY, FOLLOW, TEARDOWN, Stages
from tests.openai_service.world import World

SECONDS_A_REQUEST = 3.0  # the child's waits are not the service's: its clock moves with the requests
TRAIN = ("train", "--config", "config.yaml", "--yes")


@dataclass(frozen=True)
class Journey:
    """A command that is killed, the one that goes on, and what must be there at last."""

    name: str
    stage: str
    words: tuple[str, ...]
    again: Callable[[World], tuple[str, ...]]
    kinds: tuple[str, ...]  # of what the service holds at the end, sorted


def _go_on(world: World) -> tuple[str, ...]:
    return FOLLOW if (world.run.path / "config.yaml").exists() else (*TRAIN, "--auto-resume")


TRAINING = Journey("train", "new", TRAIN, _go_on, ("file", "file", "job", "model"))
DEPLOYING = Journey("deploy", "done", DEPLOY, lambda world: DEPLOY, ("deployment", "file", "file", "job", "model"))
REMOVING = {
    "openai": Journey("teardown", "done", TEARDOWN, lambda world: TEARDOWN, ("job",)),
    "azure": Journey("teardown", "deployed", TEARDOWN, lambda world: TEARDOWN, ()),
}


def journeys_of(world: World) -> list[Journey]:
    deploying = [DEPLOYING] if world.flavour == "azure" else []
    return [TRAINING, *deploying, REMOVING[world.flavour]]


@dataclass(frozen=True)
class Death:
    """Where the command died, and what came of going on."""

    journey: str
    flavour: str
    request: str
    after: bool
    problems: tuple[str, ...]


def requests_of(world: World, stages: Stages, journey: Journey) -> list[str]:
    """The requests that the command makes when nothing disturbs it."""
    _enter(world, stages, journey)
    code = _wait(_child(world, journey.words))
    assert code == 0, f"{journey.name} ends with {code} without any kill"
    return [f"{request.method} {request.path}" for request in world.loopback.requests]


def deaths_of(world: World, stages: Stages, journey: Journey, every: int = 1) -> Iterator[Death]:
    num_requests = len(requests_of(world, stages, journey))
    for number in range(0, num_requests, every):
        for after in (False, True):
            yield kill_at(world, stages, journey, number, after)


def kill_at(world: World, stages: Stages, journey: Journey, number: int, after: bool) -> Death:
    """Kill the command at its request of that number, go on, and look at what there is."""
    _enter(world, stages, journey)
    seen, children = list[Request](), list[int]()

    def is_it(request: Request) -> bool:
        seen.append(request)
        return len(seen) == number + 1

    world.loopback.kills = [Kill(is_it, after, lambda: children[0])]
    with world.loopback.paused():  # until its pid is known
        children.append(_child(world, journey.words))
    died = _wait(children[0]) == -signal.SIGKILL
    world.loopback.kills = []
    request = f"{seen[number].method} {seen[number].path}" if len(seen) > number else "none"
    problems = [] if died else ["was not killed"]
    words = journey.again(world)
    again = world.command(*words)
    if again.code or again.has_traceback:
        problems.append(f"{' '.join(words)}: {again.code}: {again.err[-600:]}")
    inventory = world.inventory()
    if duplicates_in(world):
        problems.append(f"duplicates: {inventory}")
    if tuple(kind for kind, _ in inventory) != journey.kinds:
        problems.append(f"the service holds {inventory}")
    if difference := world.difference():
        problems.append(difference)
    return Death(journey.name, world.flavour, request, after, tuple(problems))


def _enter(world: World, stages: Stages, journey: Journey) -> None:
    stages.enter(journey.stage)
    world.service.state.clock.a_request = SECONDS_A_REQUEST


def _child(world: World, words: tuple[str, ...]) -> int:
    """The pid of a fork that runs the command and leaves without a trace in this process."""
    if pid := os.fork():
        return pid
    code = 70
    try:
        code = world.command(*words).code
    finally:
        os._exit(code)


def _wait(pid: int) -> int:
    """Its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
