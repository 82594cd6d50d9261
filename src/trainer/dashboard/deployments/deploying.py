"""A deployment from the page: planned, agreed to by its digest, and made in a thread that a reload finds again."""

import hashlib
import json
import time
from collections import OrderedDict, deque
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from trainer.backends.choose import choose_service
from trainer.backends.contract import DeploymentOptions, DeploymentPlan, Deploys
from trainer.backends.quote import hold_cap
from trainer.config.schema import RunConfig
from trainer.dashboard.work import RecordedWork
from trainer.errors import ConfigError
from trainer.kinds import executes_here, is_service
from trainer.runs import Run, find_run
from trainer.web.mistakes import told
from trainer.web.words import whole_number

KEPT_PLANS = 20
PLAN_SECONDS = 1800.0  # after which prices and quotas are looked at again
MAX_LINES = 200


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan that a person may agree to, and the lines that came with it."""

    run: Run
    settings: RunConfig
    service: Deploys[Any]
    plan: DeploymentPlan[Any]
    said: tuple[str, ...]
    made_at: float

    @property
    def digest(self) -> str:
        """Identity of all that is shown before the agreement."""
        plan = self.plan
        shown = [self.run.name, plan.name, list(plan.rows), plan.quote.lines(), list(plan.doubts)]
        return hashlib.sha256(json.dumps(shown).encode()).hexdigest()


def destination(run: Run, where: str, root: Path) -> RunConfig:
    """The settings that say where a run's model goes: its own, or for a run of this machine those of another run.

    Raises: ConfigError.
    """
    own = run.config()
    if not executes_here(own.backend.kind):
        return own
    if not where:
        raise ConfigError(
            f"run {run.name!r}: was trained on this machine, expected a run on Azure ML whose workspace takes it; "
            f"choose one, or deploy with: trainer deploy {run.path} --config FILE"
        )
    settings = find_run(where, root).config()
    if not takes_adapters(settings.backend.kind):
        raise ConfigError(f"run {where!r}: is of {settings.backend.kind}, expected one of azureml; choose another")
    return settings


def takes_adapters(kind: str) -> bool:
    """True of a service that deploys the adapter of any run."""
    return not executes_here(kind) and not is_service(kind)


class Deployments:
    """Plans that wait for an agreement, and deployments that are being made."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / ".ui" / "deployments"
        self._plans: OrderedDict[str, Planned] = OrderedDict()
        self._works: dict[str, RecordedWork] = {}
        self._lock = Lock()

    def plan(self, run: Run, where: str, options: DeploymentOptions) -> Planned:
        """Verify and quote a deployment, within the cap of its settings. Raises: TrainerError."""
        settings = destination(run, where, self.root)
        service = choose_service(settings.backend.kind)
        assert service is not None, "a destination is a service"
        said: list[str] = []
        plan = service.plan_deployment(run, settings, options, said.append)
        hold_cap(plan.quote, settings.backend.spend_cap)
        planned = Planned(run, settings, service, plan, tuple(said), time.monotonic())
        with self._lock:
            self._plans[planned.digest] = planned
            while len(self._plans) > KEPT_PLANS:
                self._plans.popitem(last=False)
        return planned

    def agree(self, run: Run, digest: str, settled: bool) -> None:
        """Make what was agreed to. Raises: ConfigError, for an unknown or old plan, or open doubts."""
        with self._lock:
            planned = self._plans.get(digest)
            if planned is None or planned.run.name != run.name or time.monotonic() - planned.made_at > PLAN_SECONDS:
                raise ConfigError("the plan is no longer known, expected a recent one; look at the price again")
            if planned.plan.doubts and not settled:
                raise ConfigError(*planned.plan.doubts)
            work = self._work(run)
            if work.is_under_way:
                raise ConfigError(f"run {run.name!r}: is being deployed, expected its end; see below")
            del self._plans[digest]
            work.begin(partial(_deploy, planned, work), name=planned.plan.name, said=[])

    def state(self, run: Run) -> dict[str, Any] | None:
        """Progress of the deployment that was begun here last; None without one."""
        return self._work(run).state()

    def wait(self, run: Run) -> None:
        """Wait until the deployment has ended."""
        self._work(run).wait()

    def _work(self, run: Run) -> RecordedWork:
        return self._works.setdefault(run.name, RecordedWork(self.folder / f"{run.name}.json", "deploying"))


def _deploy(planned: Planned, work: RecordedWork) -> dict[str, Any]:
    """The ending of a deployment that was agreed to."""
    said = deque[str](maxlen=MAX_LINES)

    def say(message: str) -> None:
        said.append(message)
        work.note(said=list(said))

    try:
        endpoint = planned.service.deploy(planned.plan, planned.run, say)
    except Exception as error:  # of any kind: the page waits for the ending
        return {"state": "failed", "error": told(error, f"deploying {planned.run.name}")}
    return {"state": "ready", "endpoint": asdict(endpoint)}


def options_of(**texts: str) -> DeploymentOptions:
    """The options of a form's texts, empty ones left to the backend. Raises: ConfigError, for what is no number."""
    problems, values = list[str](), dict[str, Any]()
    for name, text in texts.items():
        if not text.strip():
            continue
        if name in ("capacity", "instance_count"):
            if not (number := whole_number(text.strip(), 10**6)):
                problems.append(f"{name}: is {text.strip()[:40]!r}, expected a whole number from 1; correct it")
                continue
            values[name] = number
        else:
            values[name] = text.strip()
    if problems:
        raise ConfigError(*problems)
    return DeploymentOptions(**values)
