"""SIGKILL at each request of a submission, before and after the service has acted on it, and the same command again.

A command runs in a fork of this process, so that it dies as a process does and starts in no time.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.integration.azure_twin.commands import World
from tests.integration.azure_twin.operations import Stages
from tests.loopback import Kill, Request

COMMAND = ("train", "--config", "azure.yaml", "--auto-resume", "--yes", "--detach")
LIMIT_SECONDS = 120.0


@dataclass(frozen=True)
class Killed:
    """What has become of a submission that was killed, and begun again."""

    request: str
    after: bool
    died: bool
    code: int  # of the second time
    jobs: int
    problems: tuple[str, ...]


def run_forked(world: World, before: Callable[[int], None] = lambda pid: None) -> int:
    """The command in a process of its own; its exit code, or the negative number of the signal that ended it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(world, reading)
    before(pid)
    os.write(writing, b".")  # only now it begins
    until = time.monotonic() + LIMIT_SECONDS
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    os.close(reading)
    os.close(writing)
    return os.waitstatus_to_exitcode(ended[1])


def _child(world: World, reading: int) -> None:
    from trainer.backends.azureml.workspace import credential

    os.read(reading, 1)
    credential.cache_clear()  # its connections are the parent's
    code = 99
    try:
        done = world.command(*COMMAND)
        code = done.code
        if code:
            os.write(2, done.err.encode())
    finally:
        os._exit(code)


def boundaries(world: World, stages: Stages) -> list[str]:
    """The requests that an undisturbed submission makes."""
    stages.enter("submitted")  # everything is imported, and the code is known
    stages.enter("empty", uploads=False)
    assert run_forked(world) == 0
    made = [*world.twin.service.requests, *world.twin.door.requests]
    return [f"{request.method} {request.path.rsplit('/workspaces/', 1)[-1][-60:]}" for request in made]


def kill_at(world: World, stages: Stages, number: int, after: bool) -> Killed:
    """Kill the command at its request of this number, and give the same command again."""
    stages.enter("empty", uploads=False)
    seen: list[Request] = []

    def is_it(request: Request) -> bool:
        seen.append(request)
        return len(seen) == number

    def arm(pid: int) -> None:
        kill = Kill(is_it, after, lambda: pid)
        world.twin.service.kills, world.twin.door.kills = [kill], [kill]

    died = run_forked(world, arm) == -signal.SIGKILL
    world.twin.service.kills, world.twin.door.kills = [], []
    code = run_forked(world)
    jobs = [path for path in world.twin.arm.created if path.startswith("jobs/")]
    problems = [f"exit code {code}"] if code else []
    problems += [f"{len(jobs)} jobs"] if len(jobs) != 1 else []
    problems += [f"in no ledger: {path}" for path in world.unledgered()]
    problems += [f"gone, and in the ledger: {key}" for key in world.vanished()]
    problems += [f"twice: {path}" for path in world.duplicates()]
    last = seen[number - 1] if len(seen) >= number else None
    name = f"{last.method} {last.path.rsplit('/', 1)[-1][-60:]}" if last else "none"
    return Killed(name, after, died, code, len(jobs), tuple(problems))


def every_kill(world: World, stages: Stages) -> Iterator[Killed]:
    for number in range(1, len(boundaries(world, stages)) + 1):
        for after in (False, True):
            yield kill_at(world, stages, number, after)
