"""One process at a time writes a run: a lock file that its owner keeps alive and that outlives no one.

The lock works wherever creating a file fails if the file exists, network mounts included. An owner on this host is
asked for by its process; one on another host, or in another container, is watched: it counts up a beat in the file, and
an owner whose beat stands still is dead. No clock is compared with another machine's.
"""

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from trainer.errors import ConfigError
from trainer.kinds import executes_here
from trainer.runs import files
from trainer.runs.process import is_alive, is_here, this_process

NAME = "lock.json"
BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 30.0  # a mount may show another host's writes late


class RunInUse(ConfigError):
    """A process works on the run, or is about to."""

    def __init__(self, name: str, found: str, advice: str) -> None:
        super().__init__(f"run {name!r}: {found}, expected a stopped run; {advice}")

    @classmethod
    def by(cls, owner: Mapping[str, Any], folder: Path) -> Self:
        """The refusal to touch a run that `owner`, a process, executes."""
        found = f"is in use by process {owner.get('pid')} on {owner.get('host')!r}"
        if executes_here(str(files.read_record(folder / "status.json").get("backend", "local"))):
            return cls(folder.name, found, f"stop it with: trainer pause {folder}")
        return cls(folder.name, found, "that process follows its job: end it with Ctrl-C, which leaves the job alone")


class Lock:
    """A lock that is held; `lost` says that another process took it over while this one was suspended."""

    lost = False


@contextmanager
def locked(folder: Path, report: Callable[[str], None]) -> Iterator[Lock]:
    """Hold the lock of a run's folder while the block runs. `report` gets a line when this waits for a sign of life.

    Raises: RunInUse, when another process holds it.
    """
    path = folder / NAME
    owner = this_process() | {"token": secrets.token_hex(8)}
    while not _created(path, owner):
        _remove_stale(path, report)
    lock, stop = Lock(), threading.Event()
    heart = threading.Thread(target=_beat, args=(path, owner, lock, stop), daemon=True)
    heart.start()
    try:
        yield lock
    finally:
        stop.set()
        heart.join()
        with contextlib.suppress(
            OSError
        ):  # an unwritable folder has failed the block already, with an error of its own
            if files.read_record(path).get("token") == owner["token"]:
                path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Look:
    """The lock's record at a moment, from which a sign of life is waited for."""

    found: dict[str, Any]
    at: float

    @classmethod
    def now(cls, folder: Path) -> Self:
        """Read the lock of a run's folder."""
        return cls(files.read_record(folder / NAME), time.monotonic())


def refuse_held(folder: Path, report: Callable[[str], None], earlier: Look | None = None) -> None:
    """Watch an owner on another machine for a sign of life; what has passed since an `earlier` look counts.

    Raises: RunInUse, when a process holds the lock.
    """
    look = earlier if earlier is not None and earlier.found else Look.now(folder)
    if look.found and _is_held(folder / NAME, look, report):
        raise RunInUse.by(look.found, folder)


def holder(folder: Path) -> dict[str, Any] | None:
    """The process that holds the lock: host and pid. None when nobody does, or its owner on this host is gone."""
    owner = files.read_record(folder / NAME)
    return owner if owner and is_alive(owner) else None


def _created(path: Path, owner: dict[str, Any]) -> bool:
    try:
        files.write_flushed(path, json.dumps(owner | {"beat": 0}).encode())
    except FileExistsError:
        return False
    return True


def _remove_stale(path: Path, report: Callable[[str], None]) -> None:
    """Raises: RunInUse, when the owner lives."""
    look = Look.now(path.parent)
    if _is_held(path, look, report):
        raise RunInUse.by(look.found, path.parent)
    # Of several that found it stale, one renames it; the others find it gone and try to create theirs.
    aside = path.with_name(f".{NAME}.{secrets.token_hex(4)}.stale")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    now = files.read_record(aside)
    if now.get("token") != look.found.get("token"):  # another process was faster: this is its new lock
        aside.rename(path)
        return
    aside.unlink(missing_ok=True)


def _is_held(path: Path, look: Look, report: Callable[[str], None]) -> bool:
    found = look.found
    if found and is_here(found):
        return is_alive(found)
    until = look.at + PATIENCE_SECONDS
    if found and (left := until - time.monotonic()) > 0:
        owner = f"process {found.get('pid')} on {found.get('host')!r}"
        report(f"waiting {left:.0f} s for a sign of life of {owner}")
    # A lock that cannot be read is just being written, or was cut short by a crash: it gets the same time.
    while True:
        now = files.read_record(path)
        if now != found:
            return bool(now) and (not is_here(now) or is_alive(now))
        if time.monotonic() >= until:
            return False
        time.sleep(0.2)


def _beat(path: Path, owner: dict[str, Any], lock: Lock, stop: threading.Event) -> None:
    beat = 0
    while not stop.wait(BEAT_SECONDS):
        beat += 1
        if files.read_record(path).get("token") != owner["token"]:
            lock.lost = True
            return
        try:
            files.write_whole(path, json.dumps(owner | {"beat": beat}))
        except OSError:
            continue  # a full disk must not end the run
