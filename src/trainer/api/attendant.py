"""Work without a request: jobs are validated and queued, followed to their end, settled, and told of.

One server below a folder of runs does it at a time. Everything it knows is in files, so that the next one goes on.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from trainer.api.admission import ensure_admission, resume_queue
from trainer.api.job import Job, shared_file
from trainer.api.job_list import all_jobs
from trainer.api.model_process import holding_models
from trainer.api.results import settle
from trainer.api.settings import ApiSettings
from trainer.api.spending import give_back
from trainer.api.webhooks import deliver_due
from trainer.errors import TrainerError, file_error
from trainer.kinds import executes_here
from trainer.runs import files, flock
from trainer.web.attendance import ATTENDANCE

OFFICE = "attendant.lock"
POLL_SECONDS = 1.0

Tell = Callable[[str], None]


class Attendant:
    """Two threads: one looks after jobs, the other, which may wait for other machines, sends webhooks."""

    def __init__(self, settings: ApiSettings, tell: Tell, poll_seconds: float = POLL_SECONDS) -> None:
        self.settings, self.tell, self.poll_seconds = settings, tell, poll_seconds
        self._closed: dict[str, tuple[object, ...]] = {}  # jobs of which nothing is left to do, as their files were
        self._told: dict[str, tuple[object, ...]] = {}
        self._said: set[str] = set()
        self._ending = threading.Event()

    def run(self, look: Callable[[], None]) -> None:
        """Look again and again; whatever goes wrong is told once, and the next look may succeed."""
        while not self._ending.wait(self.poll_seconds):
            try:
                look()
            except TrainerError as error:
                self._say(str(error))
            except OSError as error:
                self._say(str(file_error(error, self.settings.root)))

    def look(self) -> None:
        """Move each job on that can be."""
        waits, is_open = False, False
        for job in all_jobs(self.settings.root):
            state = _state(job)
            if self._closed.get(job.id) == state:
                continue
            if settle(job, self.settings.root):
                give_back(self.settings.root, job)
                self._closed[job.id] = _state(job)
                continue
            is_open = True
            waits |= not job.is_admitted
            if job.is_admitted and not executes_here(job.run.backend):
                ATTENDANCE.look(job.run, True)
        if waits:
            ensure_admission(self.settings)
        if is_open:
            resume_queue(self.settings.root)

    def tell_all(self) -> None:
        """Send the webhooks that are due. An address that does not answer is not asked again in the same round."""
        silent: set[str] = set()
        for job in all_jobs(self.settings.root) if self.settings.webhooks else ():
            state = _state(job)
            if self._told.get(job.id) == state or not job.outcome():
                continue
            if not deliver_due(job, self.settings.webhooks, silent, self._say):
                self._told[job.id] = _state(job)

    def end(self) -> None:
        """Let the threads end after what they are at."""
        self._ending.set()

    def _say(self, words: str) -> None:
        if words not in self._said:
            self._said.add(words)
            self.tell(words)


def _state(job: Job) -> tuple[object, ...]:
    return tuple(files.stamp(job.run.path / name) for name in ("status.json", "api_outcome.json"))


@contextlib.contextmanager
def attending(settings: ApiSettings, tell: Tell, poll_seconds: float = POLL_SECONDS) -> Iterator[None]:
    """Look after the jobs of a server while the block runs, unless another server of its folder does.

    The models that it has answered chat with have ended with the block.
    """
    attendant = Attendant(settings, tell, poll_seconds)
    threads = [
        threading.Thread(target=_in_office, args=(attendant, name, look), daemon=True)
        for name, look in ((OFFICE, attendant.look), ("webhooks.lock", attendant.tell_all))
    ]
    for thread in threads:
        thread.start()
    try:
        with holding_models(settings.root):
            yield
    finally:
        attendant.end()
        threads[0].join(10)


def _in_office(attendant: Attendant, name: str, look: Callable[[], None]) -> None:
    """Wait until no other server is at it, and then be the one."""
    while (office := flock.take(shared_file(attendant.settings.root, name))) is None:
        if attendant._ending.wait(attendant.poll_seconds):
            return
    try:
        attendant.run(look)
    finally:
        os.close(office)
