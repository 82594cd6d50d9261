"""Work of a server in a thread, with a record of its progress that a reload, or another server, finds again."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

from trainer.runs import files
from trainer.runs.process import is_alive, this_process
from trainer.runs.run import now
from trainer.web.mistakes import report

INTERRUPTED = "interrupted"


class RecordedWork:
    """Work that is begun again and again, once at a time; a record that cannot be written stops none of it."""

    def __init__(self, path: Path, working: str) -> None:
        self.path, self.working = path, working
        self._record: dict[str, Any] = {}
        self._thread: Thread | None = None
        self._is_written = True

    @property
    def is_under_way(self) -> bool:
        """True while this server works."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, do: Callable[[], dict[str, Any]], **record: Any) -> None:
        """Let a thread work; what `do` returns ends the record."""
        started = {"state": self.working, "started_at": now(), "process": this_process()}
        self._record = {}
        self.note(**started, **record)
        self._thread = Thread(target=lambda: self.note(**do(), ended_at=now()), daemon=True)
        self._thread.start()

    def note(self, **changes: Any) -> None:
        """Take changes into the record. One that cannot be written is reported once, and shown all the same."""
        self._record = self._record | changes
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(self.path, self._record)
            self._is_written = True
        except Exception as error:  # of any kind: what is under way costs, and continues
            if self._is_written:
                with contextlib.suppress(OSError, ValueError):  # a terminal that is gone, or a log on the full disk
                    report(error)
            self._is_written = False

    def state(self) -> dict[str, Any] | None:
        """The record of what was begun last, here or by another server; None before the first."""
        under_way = self.is_under_way  # before the record, which the thread ends as its last act
        found = self._found()
        is_own = found.get("started_at") == self._record.get("started_at")
        if found.get("state") == self.working and not (under_way if is_own else is_alive(found.get("process") or {})):
            return found | {"state": INTERRUPTED}
        return found or None

    def wait(self) -> None:
        """Wait until it has ended."""
        if self._thread is not None:
            self._thread.join()

    def _found(self) -> dict[str, Any]:
        """The newer record of this server's and the file's: the file may be older, or another server's."""
        own = self._record
        try:
            kept = files.read_record(self.path)
        except OSError:
            return own
        return kept if str(kept.get("started_at", "")) > str(own.get("started_at", "")) else own
