"""The queue of one machine: the order in which its waiting runs start, in files below the folder of the runs.

.queue/HOST/queue.json    the entries in their order          change.lock   held while that file is changed
.queue/HOST/worker.json   the process that starts runs        worker.lock   held by it while it lives
.queue/HOST/started/RUN   the GPUs of a started run, a file that its process holds locked while it lives
.queue/HOST/worker.log    output of a worker in the background
.queue/HOST/models.lock   shared by processes that hold a model for the playground, while they live

Only processes of one machine share the locks (flock.py), also where the folder lies on a mount. Reading takes none.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError, TrainerError, file_error, similar
from trainer.runs import files, flock
from trainer.runs.process import is_alive, this_process, visible_gpus

FOLDER, FILE = ".queue", "queue.json"
CHANGE, WORKER, WORKER_RECORD, LOG, STARTED = "change.lock", "worker.lock", "worker.json", "worker.log", "started"
MODELS = "models.lock"
FORMAT = 1
STARTED_BY_QUEUE = "TRAINER_STARTED_BY_QUEUE"  # in the environment of a run that the worker starts


class QueueInUse(ConfigError):
    """Another process starts the queue's runs."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """The quote that was agreed to when a run that bills was put into the queue."""

    total: float | None  # None where a price was not known
    ceiling: float | None  # by the dearest reading of each price
    currency: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueuedRun:
    """A run that waits, or that the worker has started and not yet seen end."""

    run: str  # the name of its folder beside the queue
    num_gpus: int | None  # None: all that the worker sees
    folder: str  # its process starts there: paths in its config may be relative
    added_at: str
    quote: Agreed | None = None  # None where it bills nothing
    starts: int = 0  # processes that have begun
    gpus: tuple[str, ...] | None = None  # of its process, none on a CPU; None while it waits

    @property
    def waits(self) -> bool:
        return self.gpus is None


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """The place of a run among those that wait in the queue of a machine."""

    number: int  # from 1
    total: int
    host: str
    is_here: bool
    has_worker: bool

    def __str__(self) -> str:
        where = "the queue" if self.is_here else f"the queue of {self.host!r}"
        return f"waits in {where}, place {self.number} of {self.total}" if self.number else f"was started by {where}"


class Queue:
    """The queue of this machine in a folder of runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / FOLDER / _own_name()
        self.file = self.folder / FILE
        self._office: int | None = None

    def entries(self) -> list[QueuedRun]:
        """Started and waiting runs in their order. Raises: ConfigError, for a file that is damaged or newer."""
        return _read(self.file)

    def add(
        self, run: str, num_gpus: int | None = None, quote: Agreed | None = None, folder: Path | None = None
    ) -> int:
        """Put a run at the end; its place among those that wait. `folder` is the one its config's paths start from.

        Raises: ConfigError, when it is in the queue already, or wants more GPUs than there are; TrainingError.
        """
        at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        with self.changing() as entries:
            self.refuse(run, num_gpus)
            entries.append(QueuedRun(run, num_gpus, str((folder or Path.cwd()).absolute()), at, quote))
            return sum(entry.waits for entry in entries)

    def refuse(self, run: str, num_gpus: int | None) -> None:
        """Raises: ConfigError, for what cannot be added."""
        refuse_gpus(num_gpus)
        if any(entry.run == run for entry in self.entries()):
            raise ConfigError(f"run {run!r}: is in the queue already, expected one that is not; see: trainer queue")

    def move(self, run: str, to: int) -> None:
        """Give a waiting run the place `to` among those that wait, from 1. Raises: ConfigError, TrainingError."""
        with self.changing() as entries:
            moved = self._waiting(entries, run)
            others = [entry for entry in entries if entry.waits and entry is not moved]
            if not 1 <= to <= len(others) + 1:
                raise ConfigError(f"place: is {to}, expected 1 to {len(others) + 1}; see: trainer queue")
            others.insert(to - 1, moved)
            entries[:] = [entry for entry in entries if not entry.waits] + others

    def remove(self, run: str) -> None:
        """Take a waiting run out. Raises: ConfigError, when it does not wait; TrainingError."""
        with self.changing() as entries:
            entries.remove(self._waiting(entries, run))

    def _waiting(self, entries: list[QueuedRun], run: str) -> QueuedRun:
        found = next((entry for entry in entries if entry.run == run), None)
        if found is None:
            known = similar(run, [entry.run for entry in entries if entry.waits])
            raise ConfigError(f"run {run!r}: is not in the queue of {self.root}{known}; see: trainer queue")
        if not found.waits:
            raise ConfigError(
                f"run {run!r}: has been started, expected one that waits; stop it with: trainer pause {self.root / run}"
            )
        return found

    @contextmanager
    def changing(self) -> Iterator[list[QueuedRun]]:
        """The entries, which no other process changes meanwhile; what the block makes of them is written at its end.

        Raises: ConfigError, for a damaged file, which stays as it is; TrainingError, for a full disk.
        """
        with self._alone():
            entries = self.entries()
            before = list(entries)
            yield entries
            if entries != before:
                with _in_words(self.file):
                    files.write_json(self.file, {"format": FORMAT, "entries": [asdict(entry) for entry in entries]})

    @contextmanager
    def working(self) -> Iterator[None]:
        """Be the one process that starts runs of this queue. Raises: QueueInUse, when another one is."""
        with self._alone():  # so that nobody who only looks holds the worker's lock for a moment
            self._office = flock.take(self.folder / WORKER)
            if self._office is None:
                owner = files.read_record(self.folder / WORKER_RECORD)
                raise QueueInUse(f"the queue of {self.root}: process {owner.get('pid')} starts its runs already")
            with _in_words(self.folder):
                for left in self.folder.glob(".*.tmp"):  # by a writer that was killed: nobody else writes now
                    left.unlink()
                files.write_json(self.folder / WORKER_RECORD, this_process())
        try:
            yield
        finally:
            self.resign()

    def resign(self) -> None:
        """Leave the office of the worker, if this process holds it."""
        if self._office is not None:
            (self.folder / WORKER_RECORD).unlink(missing_ok=True)
            os.close(self._office)
            self._office = None

    def worker(self) -> dict[str, Any] | None:
        """The process that starts the runs; None without one."""
        return _worker_of(self.folder)

    def start_worker(self) -> bool:
        """Start a worker that outlives this process, unless one lives. Raises: ConfigError, TrainingError."""
        with self._alone():
            if flock.is_taken(self.folder / WORKER):
                return False
        command = [sys.executable, "-m", "trainer", "queue", "work", "--root", str(self.root.absolute())]
        with _in_words(self.folder), (self.folder / LOG).open("ab") as log:
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        return True

    def begin(self, run: str, gpus: tuple[str, ...]) -> int | None:
        """A handle that holds the run started, for its process to inherit; None where a process has it already."""
        path = self.folder / STARTED / run
        with _in_words(path):
            path.parent.mkdir(exist_ok=True)
            if (handle := flock.take(path)) is None:
                return None
            try:
                os.ftruncate(handle, 0)
                os.pwrite(handle, json.dumps({"gpus": gpus}).encode(), 0)
            except OSError:
                os.close(handle)
                raise
        return handle

    def is_started(self, run: str) -> bool:
        """True while a process that the worker started for the run lives."""
        return flock.is_taken(self.folder / STARTED / run)

    def gpus_of(self, run: str) -> tuple[str, ...]:
        """The GPUs of a started run's process."""
        found = files.read_record(self.folder / STARTED / run).get("gpus")
        return tuple(map(str, found)) if isinstance(found, list) else ()

    def forget(self, run: str) -> None:
        """Remove the trace of a started run whose process has ended."""
        with contextlib.suppress(OSError):
            (self.folder / STARTED / run).unlink(missing_ok=True)

    def hold_model(self) -> int:
        """A handle for a process to inherit that fills this machine's memory with a model: runs wait until it ends.

        Raises: ConfigError, TrainingError, where the folder cannot be written.
        """
        path = self.folder / MODELS
        with _in_words(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            return flock.share(path)

    def holds_model(self) -> bool:
        """True while such a process lives."""
        return flock.is_shared(self.folder / MODELS)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Raises: ConfigError, TrainingError, where the folder cannot be written or another process never lets go."""
        path = self.folder / CHANGE
        with _in_words(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = flock.wait_for(path)
        try:
            yield
        finally:
            os.close(handle)


def agreed_of(value: dict[str, Any]) -> Agreed:
    """The quote as it was written. Raises: LookupError, TypeError."""
    return Agreed(**value | {"lines": tuple(value["lines"])})


def place_of(folder: Path) -> QueuePlace | None:
    """The place of a run's folder in the queue of whatever machine; None where it does not wait."""
    place = entry_of(folder)
    return place if place is not None and place.number else None


def entry_of(folder: Path) -> QueuePlace | None:
    """As `place_of`, also of a run that was started and has not been seen to end: its number is 0."""
    for path in sorted(folder.parent.glob(f"{FOLDER}/*/{FILE}")):
        try:
            entries = _read(path)
        except TrainerError:  # whoever changes the queue says so
            continue
        if all(entry.run != folder.name for entry in entries):
            continue
        waiting = [entry.run for entry in entries if entry.waits]
        number = waiting.index(folder.name) + 1 if folder.name in waiting else 0
        host, has_worker = path.parent.name, _worker_of(path.parent) is not None
        return QueuePlace(number, len(waiting), host, host == _own_name(), has_worker)
    return None


def refuse_gpus(num_gpus: int | None) -> None:
    """Raises: ConfigError, for more GPUs than this process may use."""
    if num_gpus is None or 1 <= num_gpus <= (known := len(visible_gpus())):
        return
    expected = f"1 to {known}, the GPUs of this machine" if known else "none of a machine without GPUs; leave it out"
    raise ConfigError(f"--gpus: is {num_gpus}, expected {expected}")


def _own_name() -> str:
    """The machine's name, as a folder's."""
    return re.sub(r"[^A-Za-z0-9._-]|^\.", "_", os.uname().nodename) or "_"


def _worker_of(folder: Path) -> dict[str, Any] | None:
    record = files.read_record(folder / WORKER_RECORD)
    return record if record and is_alive(record) else None


def _read(path: Path) -> list[QueuedRun]:
    """Raises: ConfigError, for a file that is damaged, cannot be read, or is of a newer version."""
    with _in_words(path):
        try:
            value = files.read_json(path)
            if value is None and not path.exists():
                return []
            files.refuse_newer(path, value["format"], FORMAT)
            entries = [_entry_of(found) for found in value["entries"]]
            if len({entry.run for entry in entries}) < len(entries):
                raise ValueError("a run stands in it twice")
        except ConfigError:
            raise
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"{path}: is damaged ({error}), expected the queue as it was written; correct it, or move it away and "
                "put each run that waited in the queue again with: trainer resume RUN --queue"
            ) from None
    return entries


def _entry_of(value: dict[str, Any]) -> QueuedRun:
    """Raises: ValueError, LookupError, TypeError."""
    gpus, quote, entry = value["gpus"], value["quote"], QueuedRun(**value)
    whole = [entry.starts, *([] if entry.num_gpus is None else [entry.num_gpus])]
    if not all(isinstance(text, str) for text in (entry.run, entry.folder, entry.added_at, *(gpus or ()))):
        raise TypeError("an entry holds something else than text")
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in whole):
        raise TypeError("an entry holds something else than a number")
    if Path(entry.run).name != entry.run or entry.run.startswith("."):
        raise ValueError(f"{entry.run!r} is no run's name")
    agreed = None if quote is None else agreed_of(quote)
    return QueuedRun(
        entry.run,
        entry.num_gpus,
        entry.folder,
        entry.added_at,
        agreed,
        entry.starts,
        None if gpus is None else tuple(gpus),
    )


@contextmanager
def _in_words(place: Path) -> Iterator[None]:
    """Raises: ConfigError, TrainingError, in place of an error of the operating system."""
    try:
        yield
    except OSError as error:
        raise file_error(error, place) from None
