"""Clean step of a data file: what `trainer data clean` finds, and a cleaned copy as the file's next version.

The command itself does the work, in a process of its own, so that the page and the terminal never differ.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from trainer.dashboard.datasets.edits import next_version
from trainer.dashboard.datasets.files import DataSet, id_of
from trainer.dashboard.datasets.processes import OwnProcesses
from trainer.dashboard.work import RecordedWork
from trainer.errors import ConfigError, TrainerError

MOST_SECONDS = 3600.0
SAID_CHARS = 600
SHOWN_LINES = 20  # of a kind, which the page links, and of errors
WORKING = "cleaning"


class Cleanings:
    """Cleanings below a folder of runs, the last one of each file."""

    def __init__(self, root: Path) -> None:
        self.folder = root / ".ui" / "cleaning"
        self._works: dict[str, RecordedWork] = {}
        self._processes = OwnProcesses()
        self._lock = Lock()

    def state(self, file: DataSet) -> dict[str, Any] | None:
        """The last cleaning; `is_of_this` is False where the file has changed since. None before the first."""
        found = self._work(file).state()
        return None if found is None else found | {"is_of_this": found.get("file_state") == list(file.state)}

    def begin(self, file: DataSet, held_out: Sequence[DataSet], remove: Sequence[str], writes: bool) -> None:
        """Look for faults, or write the copy without them. Raises: ConfigError, while that is under way."""
        words = ["data", "clean", str(file.path), "--format", "json"]
        words += [word for other in held_out for word in ("--validation", str(other.path))]
        words += ["--remove", ",".join(remove)] if remove else []
        if writes:
            words += ["--fix", "--output", str(next_version(file.path))]
        with self._lock:
            work = self._work(file)
            if work.is_under_way:
                raise ConfigError(f"{file.name}: is being cleaned, expected its end; see below")
            asked = {"held_out": [other.id for other in held_out], "remove": list(remove), "writes": writes}
            work.begin(partial(self._cleaned, words), file_state=list(file.state), **asked)

    def end(self) -> None:
        """End the processes."""
        self._processes.end()

    def _work(self, file: DataSet) -> RecordedWork:
        name = f"{hashlib.sha256(file.id.encode()).hexdigest()[:16]}.json"
        return self._works.setdefault(file.id, RecordedWork(self.folder / name, WORKING))

    def _cleaned(self, words: list[str]) -> dict[str, Any]:
        """The end of the record."""
        try:
            ended = self._processes.run("trainer", *words, most_seconds=MOST_SECONDS)
        except TrainerError as error:
            return {"state": "failed", "error": str(error)}
        if ended is None:
            return {"state": "failed", "error": "the server was ended"}
        if ended.code:
            return {"state": "failed", "error": _error_of(ended.said) or f"the process ended with {ended.code}"}
        document = json.loads(ended.answer)
        for kind in document["kinds"]:
            kind["more_lines"] = max(0, len(kind["lines"]) - SHOWN_LINES)
            kind["lines"] = kind["lines"][:SHOWN_LINES]
        written = document.get("written")
        made = {"made": id_of(Path(written["file"])), "log": written["log"]} if written else {}
        return {"state": "ready", "found": document} | made


def _error_of(said: str) -> str:
    lines = [line.removeprefix("error: ") for line in said.splitlines() if line.startswith("error: ")]
    more = [f"and {len(lines) - SHOWN_LINES:,} more"] if len(lines) > SHOWN_LINES else []
    return "\n".join([*lines[:SHOWN_LINES], *more]) or said.strip()[-SAID_CHARS:]
