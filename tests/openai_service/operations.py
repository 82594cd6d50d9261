"""Every operation of the backend at the service: the command that makes it, and the moment to make it at."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.commands import Done
from tests.loopback import Fault, Request, status
from tests.openai_service.arm import Other
from tests.openai_service.state import TARGET, Flavour
from tests.openai_service.world import RUN, Snapshot, World

START = ("train", "--config", "config.yaml", "--yes", "--detach")
LONG = ("training.n_epochs=50", "training.batch_size=1")  # longer than anybody is patient
FOLLOW = ("train", "--resume", RUN)
IN_PARTS = {
    "trainer.backends.openai.upload.LARGE_BYTES": 100,
    "trainer.backends.openai.upload.PART_BYTES": 1000,
}  # files as small as a test's are sent whole otherwise


@dataclass(frozen=True)
class Operation:
    """`again` takes the command up once more where the first one ended with a message."""

    name: str
    stage: str
    words: tuple[str, ...]
    method: str
    path: str  # a pattern for the path below the API's root
    flavours: tuple[Flavour, ...] = ("openai", "azure")
    again: tuple[str, ...] = ()
    patches: Mapping[str, Any] = field(default_factory=dict)
    first: Fault | None = None  # what must go wrong for the operation to be made at all
    check: Callable[[World], bool] = lambda world: True  # whether the command has had its effect

    def match(self, request: Request) -> bool:
        return request.method == self.method and bool(re.search(self.path, request.path))

    def __str__(self) -> str:
        return self.name


def is_creation(request: Request) -> bool:
    return request.method == "POST" and request.path.endswith("/fine_tuning/jobs")


def is_upload(request: Request) -> bool:
    return request.method == "POST" and request.path.endswith("/files")


def state_of(world: World) -> str:
    return next(iter(world.service.state.jobs.values())).state


def _one_job(world: World) -> bool:
    return len(world.service.state.jobs) == 1


def _succeeded(world: World) -> bool:
    return world.run.state == "succeeded"


def _nothing_left(world: World) -> bool:
    return world.inventory() == []


def _ready(world: World) -> bool:
    return [deployment.state for deployment in world.service.state.deployments.values()] == ["Succeeded"]


def _copied(world: World) -> bool:
    return world.service.state.num_copied == 1 and _ready(world)


def _no_model_or_file(world: World) -> bool:
    return {kind for kind, _ in world.inventory()} <= {"job"}


AZURE: tuple[Flavour, ...] = ("azure",)
LOST_JOB = Fault("lost", is_creation, commits=True, answer=status(500))
LOST_FILE = Fault("lost", is_upload, commits=True, answer=status(500))
LOST_COPY = Fault("lost", lambda request: request.path.endswith("/copy") and request.method == "POST",
                  commits=True, answer=status(500))  # fmt: skip
CHECK = ("train", "--config", "config.yaml", "--check")
TEARDOWN = ("teardown", RUN, "--everything", "--yes")
DEPLOY = ("deploy", RUN, "--name", "glossary-one", "--yes")
UNDEPLOY = ("teardown", RUN, "--yes")
DEPLOY_THERE = (*DEPLOY[:-1], "--resource", Other().id, "--yes")
COPY = (*DEPLOY_THERE[:-1], "--checkpoint", "6", "--copy", "--yes")
ASK = ("chat", RUN, "What is train term 3?")
ONE_THERE, THERE = rf"/{TARGET}/deployments/[^/]+$", rf"{TARGET}$"
JOB, FILE, ONE = r"/fine_tuning/jobs/[^/]+", r"/files/[^/]+", r"/deployments/[^/]+$"


def _new(name: str, method: str, path: str, **more: Any) -> Operation:
    return Operation(name, "new", START, method, path, again=(*FOLLOW, "--detach"), check=_one_job, **more)


def _follow(name: str, path: str) -> Operation:
    return Operation(name, "started", FOLLOW, "GET", path, check=_succeeded)


OPERATIONS = (
    Operation("list models", "new", CHECK, "GET", "/models$"),
    Operation("list jobs", "new", CHECK, "GET", "/fine_tuning/jobs$"),
    Operation("read the quotas", "new", CHECK, "GET", "/usages$", AZURE),
    Operation("ask the price list", "new", CHECK, "GET", "/api/retail/prices$", AZURE),
    _new("upload a file", "POST", "/files$"),
    _new("look for a file", "GET", "/files$", first=LOST_FILE),
    _new("begin an upload", "POST", "/uploads$", patches=IN_PARTS),
    _new("send a part", "POST", "/parts$", patches=IN_PARTS),
    _new("complete an upload", "POST", "/complete$", patches=IN_PARTS),
    _new("wait for a file", "GET", f"{FILE}$"),
    _new("create a job", "POST", "/fine_tuning/jobs$"),
    _new("look for a job", "GET", "/fine_tuning/jobs$", first=LOST_JOB),
    _follow("read a job", f"{JOB}$"),
    _follow("read events", f"{JOB}/events$"),
    _follow("read checkpoints", f"{JOB}/checkpoints$"),
    _follow("read a result file", f"{FILE}/content$"),
    Operation("pause a job", "running", ("pause", RUN), "POST", "/pause$",
              check=lambda world: state_of(world) in ("pausing", "paused")),
    Operation("resume a job", "paused", (*FOLLOW, "--detach"), "POST", "/resume$",
              check=lambda world: state_of(world) == "running"),
    Operation("cancel a job", "running", ("cancel", RUN), "POST", "/cancel$",
              check=lambda world: state_of(world) == "cancelled"),
    Operation("delete a file", "done", TEARDOWN, "DELETE", f"{FILE}$", check=_no_model_or_file),
    Operation("delete a model", "done", TEARDOWN, "DELETE", "/models/", check=_no_model_or_file),
    Operation("create a deployment", "done", DEPLOY, "PUT", ONE, AZURE,
              check=_ready),
    Operation("look for a deployment", "done", (*DEPLOY[:-1], "--check"), "GET", ONE, AZURE),
    Operation("wait for a deployment", "deploying", DEPLOY, "GET", ONE, AZURE,
              check=_ready),
    Operation("read another resource", "done", (*DEPLOY_THERE[:-1], "--check"), "GET", THERE, AZURE),
    Operation("deploy in another resource", "done", DEPLOY_THERE, "PUT", ONE_THERE, AZURE, check=_ready),
    Operation("wait for it there", "done", DEPLOY_THERE, "GET", ONE_THERE, AZURE, check=_ready),
    Operation("delete it there", "far", UNDEPLOY, "DELETE", ONE_THERE, AZURE,
              check=lambda world: world.service.state.deployments == {}),
    Operation("copy a checkpoint", "done", COPY, "POST", "/copy$", AZURE, check=_copied),
    Operation("look for a copy", "done", COPY, "GET", "/copy$", AZURE, first=LOST_COPY, check=_copied),
    Operation("list deployments", "deployed", ("endpoints",), "GET", "/deployments(/[^/]+)?$", AZURE),
    Operation("delete a deployment", "deployed", UNDEPLOY, "DELETE", ONE, AZURE,
              check=lambda world: world.service.state.deployments == {}),
    Operation("chat", "deployed", (*ASK, "--endpoint", "any"), "POST", "/chat/completions$", AZURE),
    Operation("chat", "done", ASK, "POST", "/chat/completions$", ("openai",)),
)  # fmt: skip


class Stages:
    """The moments operations start from; each is reached once, with the product's own commands, and kept."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kept = {"new": world.snapshot("new")}

    def enter(self, name: str) -> None:
        if name not in self.kept:
            self.kept[name] = self._reached(name)
        self.world.restore(self.kept[name])

    def _reached(self, name: str) -> Snapshot:
        world = self.world
        match name:
            case "started":
                self._do("new", START)
            case "running":
                self._do("new", (*START, *LONG))
                while state_of(world) != "running" or not next(iter(world.service.state.jobs.values())).step:
                    world.service.advance(1)
            case "paused":
                self._do("running", ("pause", RUN))
                world.service.advance(1)
            case "done":
                self._do("started", FOLLOW)
            case "deploying":  # made, and its maker gone before it was ready
                self._do("done", DEPLOY)
                deployment = next(iter(world.service.state.deployments.values()))
                deployment.state, deployment.ready_at = "Creating", world.service.state.clock.now + 3
            case "deployed":
                self._do("done", DEPLOY)
            case "far":
                self._do("done", DEPLOY_THERE)
        return world.snapshot(name)

    def _do(self, before: str, words: tuple[str, ...]) -> Done:
        self.enter(before)
        done = self.world.command(*words)
        assert done.code == 0, (words, done.err)
        return done
