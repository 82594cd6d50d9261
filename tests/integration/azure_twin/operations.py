"""Every operation of the backend at the service, the command that makes it, and how things stand before."""

import copy
import io
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tests.integration.azure_twin.commands import RUN, Snapshot, World
from tests.loopback import Request, Response
from trainer.runs import Run

if TYPE_CHECKING:
    from trainer.inference.serve.scoring import Scorer

START = ("train", "--config", "azure.yaml", "--yes", "--detach")
GO_ON = ("train", "--resume", RUN, "--detach")
SHOW = ("show", RUN)
DEPLOY = ("deploy", RUN, "--name", "glossary-one", "--yes")
TEARDOWN = ("teardown", RUN, "--everything", "--yes")


@dataclass(frozen=True)
class Operation:
    """`again` takes the command up once more where it ended with a message."""

    name: str
    stage: str
    words: tuple[str, ...]
    match: Callable[[Request], bool]
    again: tuple[str, ...]
    check: Callable[[World], bool] = lambda world: True  # whether the command has had its effect
    uploads: bool = False  # the service does not know the code yet: a hundred files to upload


def called(method: str, path: str) -> Callable[[Request], bool]:
    return lambda request: request.method == method and bool(re.search(path, request.path))


def _uploads(data: bool) -> Callable[[Request], bool]:
    def match(request: Request) -> bool:
        return request.method == "PUT" and ".blob." in request.host and ("LocalUpload" in request.path) == data

    return match


def _gives_traffic(request: Request) -> bool:
    if not called("PUT", r"/onlineEndpoints/[^/]+$")(request):
        return False
    return bool(json.loads(request.body)["properties"].get("traffic"))


def _makes_endpoint(request: Request) -> bool:
    return called("PUT", r"/onlineEndpoints/[^/]+$")(request) and not _gives_traffic(request)


def _one_job(world: World) -> bool:
    return len([path for path in world.twin.arm.billing() if path.startswith("jobs/")]) == 1


def _deployed(world: World) -> bool:
    endpoint = world.twin.arm.resources.get("onlineEndpoints/glossary-one", {"properties": {}})
    return 100 in (endpoint["properties"].get("traffic") or {}).values()


def _nothing(world: World) -> bool:
    return world.twin.arm.inventory() == []


def _registered(world: World) -> bool:
    return any(path.startswith("models/") for path in world.twin.arm.inventory())


OPERATIONS = (
    Operation("code upload", "empty", START, _uploads(data=False), GO_ON, _one_job, uploads=True),
    Operation("code", "empty", START, called("PUT", r"/codes/[^/]+/versions/[^/]+$"), GO_ON, _one_job, uploads=True),
    Operation("data upload", "empty", START, _uploads(data=True), GO_ON, _one_job),
    Operation("data", "empty", START, called("PUT", r"/data/[^/]+/versions/[^/]+$"), GO_ON, _one_job),
    Operation("environment", "empty", START, called("PUT", r"/environments/[^/]+/versions/"), GO_ON, _one_job),
    Operation("job", "empty", START, called("PUT", r"/jobs/[^/]+$"), GO_ON, _one_job),
    Operation("get", "submitted", SHOW, called("GET", r"/jobs/[^/]+$"), SHOW),
    Operation("logs", "submitted", SHOW, called("GET", r"/runs/[^/]+/details$"), SHOW),
    Operation("cancel", "submitted", ("cancel", RUN), called("POST", r"/jobs/[^/]+/cancel$"), ("cancel", RUN)),
    Operation("register", "trained", ("register", RUN), called("PUT", r"/models/"), ("register", RUN), _registered),
    Operation("endpoint", "trained", DEPLOY, _makes_endpoint, DEPLOY, _deployed),
    Operation("deployment", "trained", DEPLOY, called("PUT", r"/deployments/[^/]+$"), DEPLOY, _deployed),
    Operation("traffic", "trained", DEPLOY, _gives_traffic, DEPLOY, _deployed),
    Operation("delete deployment", "deployed", TEARDOWN, called("DELETE", r"/deployments/[^/]+$"), TEARDOWN, _nothing),
    Operation(
        "delete endpoint", "deployed", TEARDOWN, called("DELETE", r"/onlineEndpoints/[^/]+$"), TEARDOWN, _nothing
    ),
    Operation("delete model", "deployed", TEARDOWN, called("DELETE", r"/models/"), TEARDOWN, _nothing),
)


class Stages:
    """How things stand before an operation; each stage is reached once, by the commands, and gone back to."""

    def __init__(self, world: World) -> None:
        self.world, self.known, self.codes = world, dict[str, Snapshot](), dict[str, Any]()
        self.known["empty"] = world.snapshot("empty")

    def enter(self, stage: str, uploads: bool = True) -> None:
        """Unless it `uploads`, the service knows the code from another run: its content is the same."""
        resources = self.world.twin.arm.resources
        self.codes |= {path: body for path, body in resources.items() if path.startswith("codes/")}
        self._reach(stage)
        if not uploads:
            self.world.twin.arm.resources |= copy.deepcopy(self.codes)

    def _reach(self, stage: str) -> None:
        if stage not in self.known:
            match stage:
                case "submitted":
                    self._by("empty", START)
                    job = next(path for path in self.world.twin.arm.resources if path.startswith("jobs/"))
                    self.world.twin.arm.resources[job]["properties"]["status"] = "Running"
                case "trained":
                    self.world.restore(self.known["empty"])
                    _train(self.world)
                case "deployed":
                    self._by("trained", DEPLOY)
            self.known[stage] = self.world.snapshot(stage)
        self.world.restore(self.known[stage])

    def _by(self, before: str, words: tuple[str, ...]) -> None:
        self._reach(before)
        done = self.world.command(*words)
        assert done.code == 0, done.err


def _train(world: World) -> None:
    """A finished run in the folder, as its job would have brought it home; deployments then answer as it does."""
    from trainer.config.load import load_config
    from trainer.runs import create_run
    from trainer.training.fit import fit
    from trainer.training.prepare import prepare

    given = ["backend.kind=local", "training.n_epochs=1", f"run.root={world.folder / 'runs'}"]
    prepared = prepare(load_config(world.folder / "azure.yaml", given), lambda message: None)
    run = create_run(prepared.config)
    fit(prepared, run, Console(file=io.StringIO()))
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("kind: local", "kind: azureml"), encoding="utf-8")
    world.twin.scoring.answer = answering(run)


def answering(run: Run) -> Callable[[Request, str], Response]:
    """Deployments that answer as the run's own model does, without a container."""
    scorers: dict[bytes, Response] = {}

    def answer(request: Request, path: str) -> Response:
        if request.body not in scorers:
            scored = _scorer(run.path).score(request.body)
            scorers[request.body] = Response(scored.status, scored.body)
        known = scorers[request.body]
        return Response(known.status, known.body, {"Content-Type": "application/json"})

    return answer


@cache
def _scorer(run: Path) -> "Scorer":
    """The product's own answers, without a container around them."""
    from trainer.inference.bundle import write_bundle
    from trainer.inference.serve.limits import Limits
    from trainer.inference.serve.scoring import Scorer

    folder = Path(tempfile.mkdtemp(prefix="bundle-")) / "model"
    write_bundle(Run(run), folder)
    return Scorer(folder, Limits(max_requests=1, max_tokens=1024, max_seconds=60))
