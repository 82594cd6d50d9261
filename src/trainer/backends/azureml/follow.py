"""A job as it goes on: its state, its records and its log, taken over again and again until it has ended."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainer.backends.azureml.datastore import open_datastore
from trainer.backends.azureml.download import Mirror, bring_home
from trainer.backends.azureml.history import Details, History
from trainer.backends.azureml.job import JobPlan, prefix_of
from trainer.backends.azureml.record import newest_job
from trainer.backends.azureml.states import end_of, is_final, state_of, word_of
from trainer.backends.azureml.workspace import POLLING_SECONDS, Place
from trainer.backends.http import Say, failure_of, is_failure, patience_seconds, patiently, seconds_of
from trainer.errors import BackendError, ExitCode
from trainer.runs import Run
from trainer.runs.ledger import Ledger, updated
from trainer.runs.outcome import Outcome
from trainer.runs.process import this_process

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

SILENCE = 30  # times the patience with one call: how long a service may stay out of reach while a run is followed
END_SECONDS = 30.0
OWN = frozenset({"state", "backend", "created_at", "updated_at", "error", *this_process()})  # never the node's


class Watch:
    """One run's job and everything about it that is read."""

    def __init__(self, run: Run, client: "MLClient", place: Place, plan: JobPlan, say: Say) -> None:
        self.run, self.client, self.plan, self.say = run, client, plan, say
        self.config = run.config()
        self.history = History(client, place, say)
        self.mirror = Mirror(run, open_datastore(client, self.config.azureml.datastore, prefix_of(plan.stem), say))
        self._told = False

    def step(self, tell: bool) -> bool:
        """Bring the run's files up to date once; whether the job has ended. Raises: BackendError."""
        entry = newest_job(self.run)
        assert entry is not None
        name = entry.thing.key
        job = patiently(lambda: self.client.jobs.get(name), f"reading the job {name!r}", self.say)
        self.mirror.update()
        details = self._details(name)
        self._take_log(details, tell)
        status = word_of(job.status)
        if is_final(status):
            self._end(status, details)
            return True
        if status != self.run.status().get("job_status"):
            self.run.event(f"job {name} is {status}", kind="job", job=name, status=status)
            self.say(f"job {name} is {status}")
        self.run.set_status(state_of(status, self.run.state), **self._of_the_node(), job_status=status)
        return False

    def _end(self, status: str, details: Details) -> None:
        """A run has succeeded only once everything it made is here."""
        entry, ledger = newest_job(self.run), Ledger(self.run.path)
        assert entry is not None
        ended = updated(entry.thing, bills="")
        ledger.write(ended, "exists", status=status, seconds=details.seconds)
        state, reason = end_of(status, self.mirror.node, details.reason)
        if state == "succeeded":
            checkpoints = self.config.azureml.checkpoints == "all"
            bring_home(self.run, self.mirror.store, checkpoints, self.say)
        if self.run.state != state:
            told = f"job {entry.thing.key} is {status}" + (f": {reason}" if reason else "")
            self.run.event(told, level="info" if state == "succeeded" else "warning", kind="job", status=status)
        self.run.set_status(state, **self._of_the_node(), job_status=status, error=reason or None)

    def _of_the_node(self) -> dict[str, Any]:
        return {name: value for name, value in self.mirror.node.items() if name not in OWN}

    def _details(self, job: str) -> Details:
        """Log and reason; a run goes on without them where the history cannot be read."""
        try:
            return self.history.details(job)
        except BackendError as error:
            if not self._told:
                self.say(f"{error}\nthe run is followed without its log")
                self._told = True
            return Details()

    def _take_log(self, details: Details, tell: bool) -> None:
        """Add to output.log what the command has printed since. A second attempt has a log of its own."""
        entry = newest_job(self.run)
        if details.log is None or entry is None:
            return
        status = self.run.status()
        start = int(status.get("log_bytes", 0)) if status.get("log_of") == entry.thing.key else 0
        new = self.history.read_log(details.log, start)
        whole = new[: new.rfind(b"\n") + 1]
        if not whole:
            return
        with (self.run.path / "output.log").open("ab") as file:
            file.write(whole)
        self.run.set_status(self.run.state, log_of=entry.thing.key, log_bytes=start + len(whole))
        if tell:
            for line in whole.decode(errors="replace").splitlines():
                self.say(line.rpartition("\r")[2])


def watch_to_the_end(watch: Watch, resubmit: Callable[[], bool]) -> Outcome:
    """Follow until the run has ended. `resubmit` gives a run that lost its machine another job, where it may.

    Raises: BackendError, when the service refuses, or stays out of reach.
    """
    heard = time.monotonic()
    while True:
        try:
            ended = watch.step(tell=True)
            heard = time.monotonic()
        except BackendError as error:
            if not _may_come_back(error) or time.monotonic() - heard > SILENCE * patience_seconds():
                raise
            watch.say(f"{error}\nthe job goes on; still trying")
            ended = False
        if ended and not (watch.run.state == "paused" and resubmit()):
            return outcome(watch.run)
        time.sleep(_polling_seconds())


def wait_for_end(watch: Watch) -> None:
    """Give a job that was told to end a little time to do so; later looks at the run find it ended."""
    until = time.monotonic() + END_SECONDS
    while not watch.step(tell=False) and time.monotonic() < until:
        time.sleep(_polling_seconds())


def _polling_seconds() -> float:
    return seconds_of("TRAINER_POLLING_SECONDS", POLLING_SECONDS)


def outcome(run: Run) -> Outcome:
    """What a run's last state means to a shell and to a person."""
    status = run.status()
    reason, again = status.get("error") or "", f"go on with: trainer resume {run.path}"
    match run.state:
        case "succeeded":
            return Outcome(ExitCode.DONE, f"run {run.name!r} has succeeded; its adapter is in {run.adapter}")
        case "paused":
            return Outcome(ExitCode.RESUMABLE, f"run {run.name!r} was stopped: {reason}; {again}")
        case "cancelled":
            return Outcome(ExitCode.RUN_FAILED, f"run {run.name!r} was cancelled; its checkpoints are kept, {again}")
    return Outcome(ExitCode.RUN_FAILED, f"run {run.name!r} has failed: {reason}; see {run.path / 'output.log'}")


def _may_come_back(error: BackendError) -> bool:
    """Whether waiting can help: the network, the service's bad moments, and a login that has to be renewed."""
    cause = error.__cause__
    if not isinstance(cause, Exception) or not is_failure(cause):
        return False
    failure = failure_of(cause)
    return failure.is_temporary or failure.status in (None, 401)
