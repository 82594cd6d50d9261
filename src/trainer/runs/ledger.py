"""A run's record of what it creates elsewhere: a line before each request, and one after each answer.

A line of `ledger.jsonl` is one step of one thing: `intended`, then `exists` or `refused`, at last `deleted`. The last
line about a thing says where it stands. A thing that is `intended` may exist: its creator was stopped, or the answer
was lost. It has a key of our choosing, by which the service can be asked.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from trainer.errors import ConfigError, quoted
from trainer.runs import files
from trainer.runs.files import record_of
from trainer.runs.run import now

FORMAT = 1  # of a line; those of version 0.1.0 carry no number and are of the same form
Step = Literal["intended", "exists", "refused", "deleted"]
NAME = "ledger.jsonl"


class Identity(NamedTuple):
    """Names of a thing that tell it from every other one of a run."""

    kind: str
    key: str
    place: str


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that a service keeps for us."""

    backend: str  # the config's word for it
    kind: str  # job, file, deployment, …
    key: str  # chosen by us, unique within its kind and place
    place: str  # the account, workspace or resource that holds it
    bills: str = ""  # what it costs and until when; empty where it costs nothing
    delete_with: str = ""  # the command that removes it

    @property
    def identity(self) -> Identity:
        """Its names; price and way to delete it may change."""
        return Identity(self.kind, self.key, self.place)


@dataclass(frozen=True, slots=True)
class Entry:
    """State of one thing. `facts`: values that the service gave for it, its own `id` among them.

    `hourly` and `currency` are the price that was quoted. What bills from a later moment than its creation on has
    `started_at`, null until it starts; what exists on and bills no more has `ended_at`.
    """

    thing: Thing
    step: Step
    created_at: str
    updated_at: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    earlier_hours: float = 0.0  # of things of its name that were deleted before it was created

    @property
    def is_open(self) -> bool:
        """True of a thing that exists, or may exist."""
        return self.step in ("intended", "exists")

    @property
    def hourly(self) -> float | None:
        """The price of an hour that was quoted; None where it is not known."""
        hourly = self.facts.get("hourly")
        return float(hourly) if isinstance(hourly, int | float) and not isinstance(hourly, bool) else None

    @property
    def currency(self) -> str:
        """That of its price."""
        return str(self.facts.get("currency", "USD"))

    @property
    def hours(self) -> float:
        """Time since it was asked for, or has started, until it ended or was gone; none of a thing that was refused."""
        begun = self._time("started_at", self.created_at)
        if self.step == "refused" or begun is None:
            return self.earlier_hours
        ended = self._time("ended_at", now() if self.is_open else self.updated_at) or datetime.now(UTC)
        return self.earlier_hours + max(0.0, (ended - begun).total_seconds() / 3600)

    def _time(self, fact: str, otherwise: str) -> datetime | None:
        """A time among the facts, or the other one where that fact is missing or no time; None where it is null."""
        told = self.facts.get(fact, otherwise)
        return None if told is None else datetime.fromisoformat(told if _is_time(told) else otherwise)

    def cost_so_far(self, hourly: float | None = None) -> float | None:
        """An estimate: its hours times its price, or times `hourly` where it holds none; None without either."""
        price = hourly if self.hourly is None else self.hourly
        return None if price is None else self.hours * price


class Ledger:
    """The ledger of one run's folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def entries(self) -> list[Entry]:
        """Every thing, in the order of its first line.

        Raises: ConfigError, when a line is damaged, or a newer version wrote it: what it was about may bill.
        """
        found: dict[Identity, Entry] = {}
        for line in self._lines():
            name = line.thing.identity
            found[name] = line if (before := found.get(name)) is None else _followed(before, line)
        return list(found.values())

    def _lines(self) -> Iterator[Entry]:
        """One by one, without those that a crash cut short: what they announced was not begun."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip("\0") or line.count("{") > line.count("}"):
                continue
            value = record_of(line) or {}
            files.refuse_newer(self.path, value.get("format"), FORMAT)
            if (entry := _entry_of(value)) is None:
                raise ConfigError(
                    f"{self.path}:{number}: is {quoted(line)}, expected a line that the trainer wrote; look at the "
                    "service for what this run has created there, then correct the line or remove it"
                )
            yield entry

    def find(self, kind: str, key: str | None = None, place: str | None = None) -> Entry | None:
        """The newest thing of a kind, or the one with the key, at any place or at that one."""
        matching = [
            entry
            for entry in self.entries()
            if entry.thing.kind == kind and key in (None, entry.thing.key) and place in (None, entry.thing.place)
        ]
        return matching[-1] if matching else None

    def open(self) -> list[Entry]:
        """Things that exist, or may exist."""
        return [entry for entry in self.entries() if entry.is_open]

    def billing(self) -> list[Entry]:
        """Things that exist, or may exist, and cost."""
        return [entry for entry in self.open() if entry.thing.bills]

    def write(self, thing: Thing, step: Step, **facts: Any) -> Entry:
        """Append a step and have it on disk before anything else is done."""
        at = now()
        line = {"format": FORMAT, "created_at": at, "step": step, "thing": _as_dict(thing), "facts": facts}
        files.append_line(self.path, line, flush=True)
        return Entry(thing, step, at, at, facts)


def _entry_of(value: Mapping[str, Any]) -> Entry | None:
    """The entry of one line; None where it is damaged."""
    try:
        entry = Entry(Thing(**value["thing"]), value["step"], value["created_at"], value["created_at"], value["facts"])
    except (TypeError, LookupError):
        return None
    words = [*_as_dict(entry.thing).values(), entry.created_at]
    is_sound = entry.step in get_args(Step) and all(isinstance(word, str) for word in words)
    return entry if is_sound and _is_time(entry.created_at) and isinstance(entry.facts, dict) else None


def _followed(before: Entry, line: Entry) -> Entry:
    """The entry after one more line. What is created again after it was gone costs from then on, and as before."""
    facts = {**before.facts, **line.facts}
    if line.is_open and not before.is_open:
        return replace(line, facts=facts, earlier_hours=before.hours)
    return replace(line, created_at=before.created_at, facts=facts, earlier_hours=before.earlier_hours)


def _is_time(text: object) -> bool:
    try:
        return isinstance(text, str) and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def updated(thing: Thing, **changes: str) -> Thing:
    """The thing with another price or another way to delete it; kind, key and place stay."""
    return replace(thing, **changes)


def _as_dict(thing: Thing) -> dict[str, str]:
    return {name: getattr(thing, name) for name in Thing.__slots__}
