"""Runs at a service while somebody looks at them: their files are brought up to date in the background."""

import threading
import time
from pathlib import Path

from trainer.backends.choose import choose
from trainer.backends.http import hurried
from trainer.kinds import executes_here
from trainer.runs import Run
from trainer.runs.summary import ACTIVE
from trainer.web.mistakes import told

MIN_SECONDS = 10.0  # between two looks at a run, however often its page is
MOST_AT_ONCE = 4


class Attendance:
    """Looks after runs in threads of its own, so that no page waits for a service."""

    def __init__(self) -> None:
        self.problems: dict[Path, str] = {}  # by run: why its files are not up to date
        self._next: dict[Path, float] = {}
        self._lock, self._places = threading.Lock(), threading.Semaphore(MOST_AT_ONCE)

    def look(self, run: Run, is_awaited: bool) -> None:
        """Bring the run up to date soon, unless that was just done; what is awaited also gets what its end brings."""
        if executes_here(run.backend) or run.state not in (*ACTIVE, "paused"):
            self.problems.pop(run.path, None)
            return
        with self._lock:
            if time.monotonic() < self._next.get(run.path, 0.0):
                return
            self._next[run.path] = float("inf")  # until this look is over
        threading.Thread(target=self._look, args=(run, is_awaited), daemon=True).start()

    def _look(self, run: Run, is_awaited: bool) -> None:
        seconds = MIN_SECONDS
        try:
            with self._places:
                backend = choose(run.backend)
                seconds = max(MIN_SECONDS, backend.poll_seconds)
                if is_awaited:
                    backend.attend(run, lambda message: None)
                else:
                    with hurried():
                        backend.refresh(run, lambda message: None)
            self.problems.pop(run.path, None)
        except Exception as error:  # the files serve as they are, with the reason beside them
            if run.path.is_dir():  # else it was deleted meanwhile
                self.problems[run.path] = told(error, f"bringing {run.name} up to date")
        finally:
            with self._lock:
                self._next[run.path] = time.monotonic() + seconds


ATTENDANCE = Attendance()
