"""Runs in short for lists, from their files alone: read again where these have changed, and numbered by change.

A list of a thousand runs is looked at each second, so only changed runs are read, and of their measurements only new
lines.
"""

import re
import threading
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

from trainer.errors import ConfigError
from trainer.runs.collection import list_folders
from trainer.runs.damage import UNREADABLE, damaged, reason_of
from trainer.runs.files import stamp
from trainer.runs.growth import growth
from trainer.runs.ledger import Entry, Ledger
from trainer.runs.lifecycle import silence
from trainer.runs.results import row_of
from trainer.runs.run import LAUNCHED, Run

LOOKED_AT = ("status.json", "results.csv", "ledger.jsonl", "config.yaml", "manifest.json", LAUNCHED, "lock.json")
VERSION = re.compile(r"[0-9]{1,18}")
ACTIVE = ("validating_files", "queued", "running")


@dataclass(frozen=True, slots=True)
class Summary:
    """A run as a list shows it; None where its files do not say."""

    name: str
    state: str = ""
    backend: str = ""
    base: str | None = None
    step: int | None = None
    total_steps: int | None = None
    created_at: str | None = None
    seconds: float | None = None  # from its creation to its end, or to now while it is active
    best_valid_loss: float | None = None
    cost: float | None = None  # so far, as quoted prices have it; None where nothing bills or no price is known
    currency: str = "USD"
    bills: tuple[str, ...] = ()  # what still does, in words
    until: str | None = None  # when its model stops answering
    damaged: tuple[str, ...] = ()
    silence: str | None = None
    problem: str | None = None  # why nothing else is known

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE

    @staticmethod
    def of(run: Run) -> "Summary":
        """The run as it is now."""
        known = _Known(run)
        known.look()
        return known.summary


@dataclass(frozen=True, slots=True)
class ChangedRuns:
    """Runs that were changed or added since a version, and the names of all."""

    changed: Mapping[str, Summary]
    names: frozenset[str]
    version: str


class Summaries:
    """All runs below a folder; threads may share one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._epoch, self._version = token_hex(4), 0  # versions of another process mean nothing here

    def all(self) -> tuple[Sequence[Summary], str]:
        """Every run as it is now, in no order, and the version."""
        with self._lock:
            self._look()
            return [known.summary for known in self._known.values()], f"{self._epoch}-{self._version}"

    def since(self, version: str) -> ChangedRuns:
        """ChangedRuns since a version that was returned before; of an unknown one, everything."""
        with self._lock:
            self._look()
            epoch, _, number = version.partition("-")
            seen = int(number) if epoch == self._epoch and VERSION.fullmatch(number) else -1
            changed = {name: known.summary for name, known in self._known.items() if known.version > seen}
            return ChangedRuns(changed, frozenset(self._known), f"{self._epoch}-{self._version}")

    def _look(self) -> None:
        folders = {folder.name: folder for folder in list_folders(self.root)}
        is_changed = bool(self._known.keys() - folders.keys())
        for name in self._known.keys() - folders.keys():
            del self._known[name]
        for name, folder in folders.items():
            known = self._known.setdefault(name, _Known(Run(folder)))
            if known.look():
                known.version, is_changed = self._version + 1, True
        self._version += is_changed


class _Known:
    """A run as it was read last."""

    def __init__(self, run: Run) -> None:
        self.run, self.state, self.version = run, None, 0
        self.summary = Summary(run.name)
        self._cursor, self._best = "", None

    state: Hashable
    _best: float | None

    def look(self) -> bool:
        """Read the run again where it may have changed; whether it looks otherwise now.

        A process may have died without a change of any file, so active runs are read each time; and what bills costs
        more each time.
        """
        state = tuple(stamp(self.run.path / name) for name in LOOKED_AT)
        if state == self.state and not self.summary.is_active and not self.summary.bills:
            return False
        self.state, before = state, self.summary
        self.summary = self._read()
        return _as_shown(self.summary) != _as_shown(before) or self.version == 0

    def _read(self) -> Summary:
        try:
            return self._of_files()
        except UNREADABLE as error:  # a damaged run hides no other
            return Summary(self.run.name, problem=reason_of(error))

    def _of_files(self) -> Summary:
        run, status = self.run, self.run.status()
        created, finished = _text(status.get("created_at")), _text(status.get("finished_at"))
        broken, base = damaged(run), run.base_name()
        entries = [] if "ledger.jsonl" in broken else Ledger(run.path).entries()
        cost, currency = cost_so_far(run, entries, status)
        return Summary(
            name=run.name,
            state=status["state"],
            backend=str(status.get("backend", "local")),
            base=base,
            step=_whole(status.get("step")),
            total_steps=_whole(status.get("total_steps")),
            created_at=created,
            seconds=_between(created, None if status["state"] in ACTIVE else finished or status.get("updated_at")),
            best_valid_loss=self._best_valid_loss(),
            cost=cost,
            currency=currency,
            bills=tuple(entry.thing.bills for entry in entries if entry.is_open and entry.thing.bills),
            until=_text(status.get("model_until")),
            damaged=(*broken, *(["config.yaml"] if base is None else [])),
            silence=silence(run),
        )

    def _best_valid_loss(self) -> float | None:
        """The lowest of all measured ones, read on from the last look."""
        while True:
            found = growth(self.run.path / "results.csv", self._cursor)
            if found.starts_over:
                self._best = None
            rows = filter(None, map(row_of, found.lines))
            losses = [row["valid_loss"] for row in rows if "valid_loss" in row]
            self._best = min([*losses, *([] if self._best is None else [self._best])], default=None)
            self._cursor = found.cursor
            if not found.lines:
                return self._best


def _as_shown(summary: Summary) -> Summary:
    """A summary without differences that a list does not show: passing seconds, and parts of a cent."""
    return replace(summary, seconds=None, cost=None if summary.cost is None else round(summary.cost, 2))


def cost_so_far(run: Run, entries: Sequence[Entry], status: Mapping[str, Any]) -> tuple[float | None, str]:
    """Sum of what its files price, with its currency: trained tokens, and hours of what bills by the hour.

    None where there is nothing of it. The bill may differ.
    """
    amounts, currency = [], "USD"
    for entry in entries:
        cost = entry.cost_so_far()
        if cost is not None and (cost or entry.step != "refused"):
            amounts.append(cost)
            currency = entry.currency
    tokens = status.get("trained_tokens")
    if isinstance(tokens, int) and (price := _training_price(run)) is not None:
        amounts.append(tokens * price / 1e6)
    return (sum(amounts) if amounts else None), currency


def _training_price(run: Run) -> float | None:
    try:
        manifest = run.find_manifest()
    except ConfigError:
        return None
    return None if manifest is None or manifest.launch is None else manifest.launch.training_price


def _between(begin: object, end: object) -> float | None:
    """Seconds between two times, or from the first to now; None where one cannot be read."""
    try:
        begun = datetime.fromisoformat(str(begin))
        ended = datetime.now(UTC) if end is None else datetime.fromisoformat(str(end))
        return max(0.0, (ended - begun).total_seconds())
    except (ValueError, TypeError):
        return None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
