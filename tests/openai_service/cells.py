"""One cell of the matrix: a command with one fault in one of its operations, and the command once more if it ended."""

import dataclasses
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from tests.loopback import FAULTS, Fault
from tests.openai_service.operations import Operation, Stages
from tests.openai_service.world import World, one_message

FOR_EVER = 10**9
LASTING = tuple(
    dataclasses.replace(fault, name=f"{fault.name}, for ever", times=FOR_EVER)
    for fault in FAULTS
    if fault.name in ("reset before", "403", "429 Retry-After 1e9", "500 before", "an HTML page with 200")
)  # a service that stays down
MOST_SECONDS = 900.0  # of a command's waiting, the job's own time included
KINDS = ("job", "file", "deployment", "copy")


@dataclass(frozen=True)
class Cell:
    """What has become of it. `problems` is empty where everything promised has held."""

    operation: str
    fault: str
    flavour: str
    happened: bool  # the command made the operation, so the fault has come
    code: int
    message: str  # empty: the command has succeeded in spite of the fault
    jobs: int
    duplicates: int
    unledgered: int
    waited_seconds: float
    problems: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        return asdict(self)


def run_cell(world: World, stages: Stages, operation: Operation, fault: Fault) -> Cell:
    stages.enter(operation.stage)
    world.patches = dict(operation.patches)
    first = [operation.first.fresh(operation.first.match)] if operation.first else []
    own = fault.fresh(lambda request: operation.match(request) and not any(one.times for one in first))
    world.loopback.faults = [own, *first]
    done = world.command(*operation.words)
    happened = own.times < fault.times
    problems = [] if happened else ["the operation was not made"]
    message = ""
    try:
        message = one_message(done) if done.code else ""
        if done.errors and not done.code:
            problems.append(f"exit code 0 with {done.errors}")
        if message and ";" not in message:
            problems.append(f"says not what to do: {message}")
    except AssertionError as error:
        problems.append(f"told no single message: {str(error)[-600:]}")
    unledgered, duplicates = _unledgered(world), duplicates_in(world)
    if done.waited_seconds > MOST_SECONDS:
        problems.append(f"waited {done.waited_seconds:.0f} s")
    if done.code:
        problems += _once_more(world, operation)
    elif not operation.check(world):
        problems.append("the command succeeded without its effect")
    unledgered, duplicates = max(unledgered, _unledgered(world)), max(duplicates, duplicates_in(world))
    if unledgered or duplicates:
        problems.append(f"{duplicates} duplicates and {unledgered} unledgered: {world.inventory()} {world.ledger()}")
    if any(kind == "model" for kind, _ in world.inventory()):
        world.command("runs")  # a detached job may have ended meanwhile: its model is known once somebody looks
    if difference := world.difference():
        problems.append(difference)
    world.patches = {}
    return Cell(
        operation.name, fault.name, world.flavour, happened, done.code, message, len(world.service.state.jobs),
        duplicates, unledgered, round(done.waited_seconds, 1), tuple(problems),
    )  # fmt: skip


def _once_more(world: World, operation: Operation) -> list[str]:
    """The fault is over: the command, or the one that takes the run up again, must reach the end."""
    words = operation.again if operation.again and world.run.path.exists() else operation.words
    world.loopback.faults = []
    again = world.command(*words)
    if again.code:
        return [f"not mended by {' '.join(words)}: {again.err[-600:]}"]
    return [] if operation.check(world) else [f"{' '.join(words)} succeeded without its effect"]


def duplicates_in(world: World) -> int:
    """Things of which one is enough: jobs of the run, files of one name, deployments."""
    state = world.service.state
    files = Counter(file.filename for file in state.files.values() if file.purpose == "fine-tune")
    return sum(
        max(0, count - 1) for count in (*files.values(), len(state.jobs), len(state.deployments), state.num_copied)
    )


def _unledgered(world: World) -> int:
    """Things at the service that bill or stay, and that no line of the ledger can stand for."""
    kept = Counter(thing.kind for thing in world.service.inventory() if thing.bills or thing.kind != "job")
    written = Counter(kind for kind, _ in world.ledger())
    return sum(max(0, kept[kind] - written[kind]) for kind in KINDS)
