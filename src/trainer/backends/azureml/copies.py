"""Whole copies of a run's files on the mounted output: the run itself is written on the node's own disk.

A mount of blob storage may refuse to rename a file or to append to one, and takes a file whole. So nothing but these
copies is ever written there: each file in one go, the manifest of a checkpoint after its files, the status at the end.
"""

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from trainer.runs import Run, lock
from trainer.runs.checkpoint import MANIFEST, newest_complete
from trainer.runs.ownership import MARKER

FILES = "files.json"  # beside the run's folder: the list of a finished run's files
HERE_ONLY = frozenset({"process.json", "request.json", "output.log"})
VOUCHING = (MANIFEST, "status.json", FILES)  # for files that were copied before
SECONDS = 2.0  # between two looks at the node's disk
TRIES, WAIT_SECONDS = 5, 2.0  # of the copies at the end


def is_kept(path: Path) -> bool:
    """False for a file that is only true on this machine, or being written."""
    hidden = path.name.startswith((".", "reader-")) and path.name != MARKER
    return path.name not in HERE_ONLY and not hidden


def comes_home(path: Path) -> bool:
    """False for a file that is not kept, or that marks or guards the folder which it lies in."""
    return is_kept(path) and path.name not in (MARKER, lock.NAME)


class Copies:
    """Copies of one run on a mount. `run` is below the folder that holds runs on the node, `mount` its counterpart."""

    def __init__(self, run: Run, mount: Path) -> None:
        self.run, self.mount = run, mount
        self._seen: dict[str, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_copying, daemon=True)

    def fetch(self, everything: bool) -> None:
        """Restore the run on the node: all of it, or its records and the newest complete checkpoint.

        Raises: RunInUse, when another node writes the run.
        """
        there = self.mount / self.run.name
        if not there.is_dir():
            return
        if everything:
            lock.refuse_held(there, _report)
        wanted = None if everything else newest_complete(there / "checkpoints")[0]
        for path in _files(there):
            name = path.relative_to(there)
            is_needed = everything or len(name.parts) == 1 or (wanted is not None and wanted.path in path.parents)
            if is_needed and path.name != lock.NAME:
                _copy(path, self.run.path / name)
        self._seen = dict(self._state()) if everything else {}

    def mark_failed(self, reason: str, earlier: lock.Look | None) -> None:
        """Write `failed` into the status on the mount, and read nothing else of the run; without a status, do nothing.

        At `running` the run would count as interrupted. Raises: OSError; RunInUse, when another node writes the run.
        """
        there = self.mount / self.run.name
        lock.refuse_held(there, _report, earlier)
        if (there / "status.json").is_file():
            _copy(there / "status.json", self.run.path / "status.json")
            self.run.set_status("failed", error=reason)
            _copy(self.run.path / "status.json", there / "status.json")

    def start(self) -> None:
        """Copy what changes, until `finish`."""
        self._thread.start()

    def finish(self) -> bool:
        """Copy the rest; True once the mount holds everything."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        for number in range(TRIES):
            if self.update():
                return True
            if number < TRIES - 1:
                time.sleep(WAIT_SECONDS)
        return False

    def update(self) -> bool:
        """Copy every file that has changed, and delete what is gone; True if nothing failed."""
        now, failed = dict(self._state()), False
        gone = sorted(self._seen.keys() - now.keys(), key=lambda name: not name.endswith(MANIFEST))
        changed = [name for name, state in now.items() if self._seen.get(name) != state]
        for name in [*gone, *sorted(changed, key=_order)]:
            if failed and _order(name):
                continue  # it vouches for what is missing
            try:
                if name in now:
                    _copy(self.run.path.parent / name, self.mount / name)
                    self._seen[name] = now[name]
                else:
                    (self.mount / name).unlink(missing_ok=True)
                    del self._seen[name]
            except FileNotFoundError:
                continue  # deleted meanwhile: the next look finds it gone
            except OSError as error:
                _report(f"copying {name} to the output: {error.strerror or error}")
                failed = True
        return not failed

    def _keep_copying(self) -> None:
        while not self._stop.wait(SECONDS):
            self.update()

    def _state(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Every file to copy, by its path below the folder that holds runs, with time and size."""
        top = self.run.path.parent
        for path in [*_files(self.run.path), top / FILES]:
            try:
                about = path.stat()
            except FileNotFoundError:
                continue
            yield path.relative_to(top).as_posix(), (about.st_mtime_ns, about.st_size)


def _report(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def _files(folder: Path) -> Iterator[Path]:
    # Unlike a path's own walk, os.walk passes over folders that vanish: checkpoints are rotated meanwhile.
    for parent, _, names in os.walk(folder):
        yield from (path for name in sorted(names) if is_kept(path := Path(parent, name)))


def _order(name: str) -> int:
    """Rank of a file: one that vouches for others comes after them."""
    last = Path(name).name
    return VOUCHING.index(last) + 1 if last in VOUCHING else 0


def _copy(source: Path, target: Path) -> None:
    """One file in one go: opened to be written anew, flushed and closed; nothing is renamed or appended."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as read, target.open("wb") as written:
        shutil.copyfileobj(read, written, 1 << 20)
        written.flush()
        os.fsync(written.fileno())
