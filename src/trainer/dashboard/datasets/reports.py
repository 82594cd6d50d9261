"""Reports on data files, kept by the digests of what they are about: a file is read once for each of its contents."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from trainer import __version__
from trainer.dashboard.datasets.files import DataSet
from trainer.dashboard.datasets.processes import OwnProcesses
from trainer.errors import TrainerError
from trainer.runs import files
from trainer.runs.files import sha256_of

Report = dict[str, Any]
PROGRAM = "trainer.dashboard.datasets.report_process"
MOST_SECONDS = 1800.0
SAID_CHARS = 300
FORMAT = 2  # of a kept report; another one is made anew


class Reports:
    """Reports in a folder; one is made at a time, in a process of its own."""

    def __init__(self, root: Path) -> None:
        self.folder = root / ".ui" / "reports"
        self._newest: dict[tuple[str, int, int], str] = {}
        self._working: set[str] = set()
        self._unkept: dict[str, Report] = {}  # those that could not be written
        self._digests: dict[tuple[str, int, int], str] = {}
        self._processes = OwnProcesses()
        self._lock, self._turn = Lock(), Lock()

    def get(self, file: DataSet, held_out: Sequence[DataSet] = (), config: Path | None = None) -> Report | None:
        """The report where it is known; None while it is made. Raises: OSError."""
        key = self._key([file, *held_out], config)
        if known := self._known(key):
            self._newest[file.state] = key
            return known
        request = {
            "file": str(file.path),
            "held_out": [str(other.path) for other in held_out],
            "config": str(config) if config else None,
        }
        with self._lock:
            if key not in self._working:
                self._working.add(key)
                Thread(target=self._make, args=(key, request), daemon=True).start()
        return None

    def newest(self, file: DataSet) -> Report | None:
        """The report made last of a file as it is, whatever it was compared with; None without one. Raises: OSError."""
        key = self._newest.get(file.state)
        return self._known(key) if key else None

    def end(self) -> None:
        """End the processes."""
        self._processes.end()

    def _key(self, read: Sequence[DataSet], config: Path | None) -> str:
        parts = [__version__, str(FORMAT), *(f"{file.path} {self._digest(file)}" for file in read)]
        parts += [config.read_text(encoding="utf-8")] if config else []
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    def _digest(self, file: DataSet) -> str:
        state = file.state
        if state not in self._digests:
            self._digests[state] = sha256_of(file.path)
        return self._digests[state]

    def _make(self, key: str, request: dict[str, Any]) -> None:
        try:
            with self._turn:
                made = self._asked(request)
        except TrainerError as error:
            made = {"problem": str(error)}
        if made is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                files.write_whole(self.folder / f"{key}.json", json.dumps(made))
            except OSError:  # a full disk hides no report
                self._unkept[key] = made
        with self._lock:
            self._working.discard(key)

    def _known(self, key: str) -> Report | None:
        return files.read_record(self.folder / f"{key}.json") or self._unkept.get(key)

    def _asked(self, request: dict[str, Any]) -> Report | None:
        """The process's answer; None where this server ends. Raises: TrainerError."""
        given = json.dumps(request).encode()
        ended = self._processes.run(PROGRAM, given=given, most_seconds=MOST_SECONDS)
        if ended is None:
            return None
        try:
            found = json.loads(ended.answer)
        except ValueError:
            lines = ended.said.strip().splitlines()
            reason = lines[-1][:SAID_CHARS] if lines else f"the process ended with {ended.code}"
            return {"problem": f"the file could not be read: {reason}"}
        return found if isinstance(found, dict) else {"problem": "the process gave no report"}
