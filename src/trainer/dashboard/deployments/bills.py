"""Everything that still bills, by the ledgers of all runs, and its removal: each thing by itself, with its result."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple

from trainer.backends.choose import choose, choose_service
from trainer.dashboard.work import RecordedWork
from trainer.errors import BackendError, ConfigError, quoted
from trainer.runs import Run, find_run, list_runs
from trainer.runs.ledger import Entry, Identity, Ledger
from trainer.web.mistakes import told

Say = Callable[[str], None]


class Named(NamedTuple):
    """A thing of a run, as addresses and forms name it."""

    run: str
    identity: Identity

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Named | None":
        """The thing that the fields name; None where they name none at all."""
        run, *identity = (str(fields.get(name, "")) for name in ("run", *Identity._fields))
        return cls(run, Identity(*identity)) if any((run, *identity)) else None

    @property
    def fields(self) -> dict[str, str]:
        """The fields that name it."""
        return {"run": self.run, **self.identity._asdict()}

    def __str__(self) -> str:
        kind, key, place = self.identity
        return f"the {kind or 'thing'} {quoted(key)} of {quoted(self.run)} in {quoted(place)}"


@dataclass(frozen=True, slots=True)
class Bill:
    """A thing that exists, or may exist, and costs. `hourly` is that of the quote; None where it is not known."""

    run: str
    backend: str
    kind: str
    key: str
    place: str
    words: str
    since: str
    hourly: float | None
    so_far: float | None  # an estimate, by hours
    currency: str
    may_not_exist: bool

    @property
    def named(self) -> Named:
        """Its names."""
        return Named(self.run, Identity(self.kind, self.key, self.place))

    @property
    def removal(self) -> Literal["delete", "cancel"]:
        """The way to end it: a job is cancelled, everything else is deleted."""
        return "cancel" if self.kind == "job" else "delete"


@dataclass(frozen=True, slots=True)
class Bills:
    """All of them, and the runs whose ledger cannot be read: what those have left may bill."""

    found: tuple[Bill, ...]
    damaged: tuple[str, ...]

    @property
    def hourly(self) -> dict[str, float]:
        """The known prices of an hour, by currency."""
        sums: dict[str, float] = {}
        for bill in self.found:
            if bill.hourly is not None:
                sums[bill.currency] = sums.get(bill.currency, 0.0) + bill.hourly
        return sums

    def only(self, named: Named | None) -> "Bills":
        """The one thing that is named, or nothing where it does not bill; everything where none is."""
        if named is None:
            return self
        return Bills(tuple(bill for bill in self.found if bill.named == named), self.damaged)

    @property
    def digest(self) -> str:
        """Identity of the list, by which an agreement to remove it is known again."""
        listed = [[bill.run, bill.backend, bill.kind, bill.key, bill.place] for bill in self.found]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def read_bills(root: Path) -> Bills:
    """Everything that bills, by the ledgers; asks no service."""
    found, damaged = list[Bill](), list[str]()
    for run in list_runs(root):
        try:
            found += [_bill(run, entry) for entry in Ledger(run.path).billing()]
        except ConfigError as error:
            damaged.append(str(error))
    return Bills(tuple(found), tuple(damaged))


def _bill(run: Run, entry: Entry) -> Bill:
    thing = entry.thing
    return Bill(
        run.name,
        thing.backend,
        thing.kind,
        thing.key,
        thing.place,
        thing.bills,
        entry.created_at,
        entry.hourly,
        entry.cost_so_far(),
        entry.currency,
        entry.step != "exists",
    )


class Cleanup:
    """One removal of everything at a time, in a thread; its state is a file, which a reload shows again."""

    def __init__(self, root: Path) -> None:
        self.root, self._work = root, RecordedWork(root / ".ui" / "cleanup.json", "running")
        self._lock = Lock()

    def state(self) -> dict[str, Any] | None:
        """Progress and results of the removal that was begun last; None before the first."""
        return self._work.state()

    def begin(self, agreed: str, named: Named | None = None) -> None:
        """Remove what was agreed to: everything, or one thing. Raises: ConfigError, when other things bill by now."""
        with self._lock:
            if self._work.is_under_way:
                raise ConfigError("a clean-up is under way, expected its end; see its results below")
            bills = read_bills(self.root).only(named)
            if named is not None and not bills.found:
                raise ConfigError(f"{named}: is not found among what bills, expected one of the list; look at it again")
            if not bills.found:
                raise ConfigError("nothing bills by now; there is nothing to remove")
            if bills.digest != agreed:
                raise ConfigError("other things bill by now than were shown, expected the same; look at the new list")
            results = [
                asdict(bill) | {"removal": bill.removal, "result": "waiting", "said": ""} for bill in bills.found
            ]
            self._work.begin(partial(self._remove_all, bills.found, results), results=results)

    def wait(self) -> None:
        """Wait until it has ended."""
        self._work.wait()

    def _remove_all(self, bills: Sequence[Bill], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
        results = list(results)
        for number, bill in enumerate(bills):

            def note(result: str, said: str, number: int = number) -> None:
                results[number] = results[number] | {"result": result, "said": said}
                self._work.note(results=list(results))

            note("working", "")
            said: list[str] = []
            try:
                remove(bill, self.root, said.append)
                note("removed", said[-1] if said else "")
            except Exception as error:  # the next one still has to go
                note("failed", told(error, f"removing {bill.key}"))
        return {"state": "ended"}


def remove(bill: Bill, root: Path, say: Say) -> None:
    """End one thing that bills. Raises: TrainerError, also where the ledger still holds it afterwards."""
    run = find_run(bill.run, root)
    if (entry := _still(run, bill)) is None:
        say("was gone already")
        return
    if bill.kind == "job":
        choose(bill.backend).cancel(run, say)
    else:
        service, before = choose_service(bill.backend), Ledger(run.path).open()
        assert service is not None, "nothing on this machine stands in a ledger"
        is_last = len(Ledger(run.path).billing()) == 1
        if bill.kind == "deployment" and not is_last:
            service.remove(run, entry.thing, say)
        else:  # an endpoint that is empty goes with its last deployment
            service.teardown(run, bill.kind != "deployment", say)
        left = {one.thing.identity for one in Ledger(run.path).open()}
        gone = [one.thing for one in before if one.thing.identity not in left]
        say(f"deleted: {', '.join(f'{thing.kind} {thing.key}' for thing in reversed(gone))}" if gone else "")
    if (entry := _still(run, bill)) is not None:
        if bill.kind == "job":
            say("its cancellation was asked for; it bills until the service has ended it")
            return
        raise BackendError(f"{bill.kind} {bill.key}: still stands in the ledger; remove it: {entry.thing.delete_with}")


def _still(run: Run, bill: Bill) -> Entry | None:
    billing = Ledger(run.path).billing()
    return next((entry for entry in billing if entry.thing.identity == bill.named.identity), None)
