"""Processes of this server that carry out one command, and end with it."""

import subprocess
import sys
from dataclasses import dataclass
from threading import Lock

from trainer.child_environment import training_environment
from trainer.drafts.checks import kill
from trainer.errors import TrainerError, file_words


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """Exit code, output and standard error of a process that has ended."""

    code: int
    answer: bytes
    said: str


class OwnProcesses:
    """The processes that this server waits for, each in a thread."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = Lock()
        self._has_ended = False

    def run(self, module: str, *words: str, given: bytes = b"", most_seconds: float) -> ProcessEnd | None:
        """Run a module until it ends; None where the server ends before. Raises: TrainerError, which says why."""
        try:
            with self._lock:
                if self._has_ended:
                    return None
                process = subprocess.Popen(
                    [sys.executable, "-m", module, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE, start_new_session=True, env=training_environment(),
                )  # fmt: skip
                self._running.add(process)
        except OSError as error:
            raise TrainerError(
                f"the process could not be begun: {file_words(error, 'start trainer ui again')}"
            ) from error
        try:
            answer, errors = process.communicate(given, timeout=most_seconds)
        except subprocess.TimeoutExpired:
            raise TrainerError(f"it took more than {most_seconds / 60:,.0f} minutes and was stopped") from None
        finally:
            kill(process)
            with self._lock:
                self._running.discard(process)
        return None if self._has_ended else ProcessEnd(process.returncode, answer, errors.decode("utf-8", "replace"))

    def end(self) -> None:
        """End the processes with all that they have started."""
        with self._lock:
            self._has_ended = True
            running = list(self._running)
        for process in running:
            kill(process)
