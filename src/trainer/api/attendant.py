"""Work without a request: jobs are validated and queued, followed to their end, settled, and told of.

One server below a folder of runs does it at a time. Everything it knows is in files, so that the next one goes on.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from enum import Enum

from trainer.api.admission import ensure_admission, resume_queue
from trainer.api.job import ADMISSION, OUTCOME, Job, shared_file
from trainer.api.job_list import all_jobs
from trainer.api.model_process import holding_models
from trainer.api.results import settle
from trainer.api.settings import ApiSettings
from trainer.api.spending import give_back
from trainer.api.webhooks import deliver_due, secret_of
from trainer.errors import TrainerError, file_error
from trainer.kinds import executes_here
from trainer.runs import files, flock
from trainer.runs.ledger import NAME as LEDGER
from trainer.web.attendance import ATTENDANCE

OFFICE = "attendant.lock"
POLL_SECONDS = 1.0

Tell = Callable[[str], None]


class _Look(Enum):
    """The thing that a job waits for: its validation, this machine, a service, or nothing."""

    WAITS, OPEN, ELSEWHERE, CLOSED = range(4)


class Attendant:
    """Two threads: one looks after jobs, the other, which may wait for other machines, sends webhooks."""

    def __init__(self, settings: ApiSettings, tell: Tell, poll_seconds: float = POLL_SECONDS) -> None:
        self.settings, self.tell, self.poll_seconds = settings, tell, poll_seconds
        self._seen: dict[str, tuple[object, _Look]] = {}  # by job: its files as they were, and what they said
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
        """Move each job on that can be. A job is read again once its files have changed."""
        looks = [self._look(job) for job in all_jobs(self.settings.root)]
        if _Look.WAITS in looks:
            ensure_admission(self.settings)
        if any(look is not _Look.CLOSED for look in looks):
            resume_queue(self.settings.root)

    def _look(self, job: Job) -> "_Look":
        state = _state(job)
        before, look = self._seen.get(job.id, (None, _Look.OPEN))
        if before != state:
            try:
                look = self._read(job)
            except (TrainerError, OSError) as error:  # the next look tries again, and other jobs have theirs
                self._say(f"{job.id}: {error if isinstance(error, TrainerError) else file_error(error)}")
                return _Look.OPEN
            self._seen[job.id] = _state(job), look
        if look is _Look.ELSEWHERE:
            ATTENDANCE.look(job.run, True)
        return look

    def _read(self, job: Job) -> "_Look":
        if settle(job, self.settings.root):
            give_back(self.settings.root, job)
            return _Look.CLOSED
        if not job.is_admitted:
            return _Look.WAITS
        return _Look.OPEN if executes_here(job.run.backend) else _Look.ELSEWHERE

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
    return tuple(files.stamp(job.run.path / name) for name in ("status.json", ADMISSION, OUTCOME, LEDGER))


@contextlib.contextmanager
def attending(settings: ApiSettings, tell: Tell, poll_seconds: float = POLL_SECONDS) -> Iterator[None]:
    """Look after the jobs of a server while the block runs, unless another server of its folder does.

    The models that it has answered chat with have ended with the block.

    Raises: ConfigError, where a webhook has no secret.
    """
    for webhook in settings.webhooks:
        secret_of(webhook)
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
