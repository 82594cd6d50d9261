"""A sweep: the runs of a grid, checked together, held against one cap, and put into the queue of this machine."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.backends.contract import Backend, Plan
from trainer.backends.data_sources import with_local_data
from trainer.backends.http import Say
from trainer.backends.quote import Item, Quote, agreed_with
from trainer.config.grid import Combination
from trainer.config.load import load_config
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError, TrainerError
from trainer.runs import Run, find_run, refuse_existing
from trainer.runs.collection import run_below
from trainer.runs.ledger import Ledger
from trainer.runs.lifecycle import is_worked_on
from trainer.runs.queue import Agreed, entry_of

MARK = "sweep"  # in a run's status: the digest of the settings that the sweep gave it


@dataclass(frozen=True, slots=True)
class Member:
    """A run of a sweep. Without a plan its folder is there; `waits_to_begin` until it has been put into the queue."""

    combination: Combination
    settings: RunConfig
    mark: str
    plan: Plan[Any] | None
    waits_to_begin: bool

    @property
    def path(self) -> Path:
        return Path(self.settings.run.root) / str(self.settings.run.name)

    @property
    def run(self) -> Run:
        return Run(self.path)

    @property
    def price(self) -> Quote | Agreed | None:
        """Its quote, or the one that was agreed to; None where it bills nothing."""
        if self.plan is None:
            return agreed_with(self.run)
        return self.plan.quote if self.plan.quote.bills else None


def check_members(
    config: Path,
    combinations: Sequence[Combination],
    backend_of: Callable[[str], Backend[Any]],
    rooted: Callable[[RunConfig], RunConfig],
    num_gpus: int | None,
    say: Say,
) -> list[Member]:
    """Check each run of a grid, and recognize those that are there. Raises: ConfigError, with the problems of all."""
    members: list[Member] = []
    problems: dict[str, list[str]] = {}
    for combination in combinations:
        try:
            settings = _named(rooted(load_config(config, combination.overrides)), combination, config)
            members.append(_member(settings, combination, backend_of(settings.backend.kind), num_gpus, say))
        except TrainerError as error:
            for problem in error.problems:
                problems.setdefault(problem, []).append(str(combination))
    if problems:
        raise ConfigError(*(_placed(words, of, len(combinations)) for words, of in problems.items()))
    if len({member.path for member in members}) < len(members):
        raise ConfigError("trainer sweep: two runs would have one name, expected different values; write them apart")
    return members


def _placed(problem: str, combinations: Sequence[str], num_all: int) -> str:
    """The problem, with the runs that have it where not all have, and it does not name its setting."""
    if len(combinations) == num_all or problem.startswith("override "):
        return problem
    more = f" and {len(combinations) - 1} more" if len(combinations) > 1 else ""
    return f"{combinations[0]}{more}: {problem}"


def _named(settings: RunConfig, combination: Combination, config: Path) -> RunConfig:
    stem = settings.run.name or re.sub(r"[^A-Za-z0-9._-]+", "_", config.stem).lstrip("._-") or "sweep"
    name = combination.name("-".join(filter(None, [stem, settings.run.suffix])))
    return settings.model_copy(update={"run": settings.run.model_copy(update={"name": name})})


def _member(
    settings: RunConfig, combination: Combination, backend: Backend[Any], num_gpus: int | None, say: Say
) -> Member:
    path, mark = Path(settings.run.root) / str(settings.run.name), _mark(settings)
    if os.path.lexists(path):
        run = _existing(settings, mark)
        return Member(combination, settings, mark, None, _was_left(run))
    local = with_local_data(settings, say)
    backend.refuse_at_once(local, False, False)
    plan = backend.plan_to_keep(backend.check_waiting(local, say, num_gpus))
    return Member(combination, settings, mark, plan, True)


def _mark(settings: RunConfig) -> str:
    """A digest of the settings as they were given, but for the run's name and place, and what it may cost."""
    given = settings.model_dump(mode="json", exclude_unset=True)
    given.pop("run", None)
    given.get("backend", {}).pop("spend_cap", None)
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


def _existing(settings: RunConfig, mark: str) -> Run:
    """The run of this name, which the same command has made before. Raises: ConfigError, where it is another one."""
    root, name = Path(settings.run.root), str(settings.run.name)
    if (run := run_below(name, root)) is None:
        refuse_existing(settings)
        return find_run(name, root)
    if run.status().get(MARK) != mark:
        raise ConfigError(
            f"run.name: {name!r} exists in {str(root)!r} with other settings than this sweep gives it, expected the "
            f"same or a new name; choose another run.name, or remove that run with: trainer delete {run.path}"
        )
    return run


def _was_left(run: Run) -> bool:
    """True for a run that an earlier command has made and was stopped before it could put it into the queue."""
    if is_worked_on(run) or entry_of(run.path) is not None or Ledger(run.path).entries():
        return False
    return run.state in ("validating_files", "paused") and all(event.get("type") != "queue" for event in run.events())


def quote_of(members: Sequence[Member]) -> Quote:
    """The price of the whole grid, an item for each run that bills; runs that are there count as was agreed to.

    Raises: ConfigError, where the prices have different currencies.
    """
    prices = {member.path.name: price for member in members if (price := member.price) is not None}
    if len(currencies := sorted({price.currency for price in prices.values()})) > 1:
        raise ConfigError(f"trainer sweep: its quotes are in {' and '.join(currencies)}, expected one currency")
    new = [member.plan.quote for member in members if member.plan is not None]
    return Quote(
        [Item(name, price.total, price.ceiling) for name, price in prices.items()],
        "; ".join(dict.fromkeys(quote.source for quote in new)) or "as agreed to",
        currencies[0] if currencies else "USD",
        tuple(dict.fromkeys(line for quote in new for line in quote.running)),
        tuple(dict.fromkeys(line for quote in new for line in quote.notes)),
    )


def enqueue(member: Member, backend: Backend[Any], num_gpus: int | None) -> Run:
    """Make the run's folder if it is not there, and let it wait. Raises: ConfigError, TrainingError."""
    run, plan = member.run, member.plan
    if plan is not None:
        run = backend.create(plan, False)
        run.set_status(run.state, **{MARK: member.mark})
    backend.enqueue(run, lambda words: None, num_gpus, None if plan is None else plan.quote)
    return run
