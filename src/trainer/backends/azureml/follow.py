"""Follow a job until it has ended: take over its state, its records and its log, again and again.

The state is the service's word for the job, read beside the status that the node writes. The log, and the reason of a
failure, come from the workspace's run history: the API behind the studio's pages.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainer.backends.arm import ARM
from trainer.backends.azureml.datastore import open_datastore
from trainer.backends.azureml.download import Mirror, bring_home
from trainer.backends.azureml.job import JobPlan, newest_job, prefix_of
from trainer.backends.azureml.workspace import Place, credential, polling_seconds, word_of
from trainer.backends.http import Say, failure_of, is_failure, patience_seconds, patiently, timeout_seconds
from trainer.errors import BackendError, ExitCode
from trainer.runs import Run
from trainer.runs.ledger import Ledger, updated
from trainer.runs.process import this_process
from trainer.runs.run import Outcome, State

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

SILENCE = 30  # times the patience with one call: how long a service may stay out of reach while a run is followed
END_SECONDS = 30.0
OWN = frozenset({"state", "backend", "created_at", "updated_at", "error", *this_process()})  # never the node's
STATES: dict[str, State] = {
    "NotStarted": "queued",
    "Queued": "queued",
    "Starting": "queued",
    "Provisioning": "queued",
    "Preparing": "queued",
    "Scheduled": "queued",
    "Running": "running",
    "Finalizing": "running",
    "NotResponding": "running",
    "CancelRequested": "running",
    "Paused": "paused",
    "Completed": "succeeded",
    "Failed": "failed",
    "Canceled": "cancelled",
}
FINAL = frozenset({"Completed", "Failed", "Canceled"})
PREEMPTED = ("preempt", "pre-empt", "evict")  # in the code or message of a job that lost its machine
# The output of the command; with several processes that of the first one.
LOGS = ("user_logs/std_log.txt", "user_logs/std_log_process_0.txt", "user_logs/std_log_process_00.txt")


@dataclass(frozen=True, slots=True)
class JobDetails:
    """A job in the run history. `logs` maps names to addresses; a signed address needs no credential."""

    reason: str = ""
    seconds: float | None = None  # that it ran
    logs: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> str | None:
        """The address of what the command printed; None before it has."""
        return next((self.logs[name] for name in LOGS if name in self.logs), None)


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

    def _end(self, status: str, details: JobDetails) -> None:
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

    def _details(self, job: str) -> JobDetails:
        """Log and reason; a run goes on without them where the history cannot be read."""
        try:
            return self.history.details(job)
        except BackendError as error:
            if not self._told:
                self.say(f"{error}\nthe run is followed without its log")
                self._told = True
            return JobDetails()

    def _take_log(self, details: JobDetails, tell: bool) -> None:
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
        time.sleep(polling_seconds())


def wait_for_end(watch: Watch) -> None:
    """Give a job that was told to end a little time to do so; later looks at the run find it ended."""
    until = time.monotonic() + END_SECONDS
    while not watch.step(tell=False) and time.monotonic() < until:
        time.sleep(polling_seconds())


def outcome(run: Run) -> Outcome:
    """What a run's last state means to a shell and to a person."""
    status = run.status()
    reason, again = status.get("error") or "", f"resume with: trainer resume {run.path}"
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


def state_of(status: str, before: State) -> State:
    """The run's state; a word of tomorrow leaves it as it was."""
    return STATES.get(status, before)


def is_final(status: str) -> bool:
    """True once the job has reached a final state."""
    return status in FINAL


def end_of(status: str, node: dict[str, Any], reason: str) -> tuple[State, str]:
    """State and reason of a run whose job has ended. `node`: the last status.json that the node wrote.

    A job that lost its machine leaves the node's record at `running`, and can be resumed: so can a run that stopped by
    itself with a checkpoint.
    """
    there = node.get("state")
    if status == "Canceled":
        return "cancelled", reason
    if status == "Completed":
        if there == "succeeded":
            return "succeeded", ""
        return "failed", f"the job is completed, and the run on its node is {there or 'not there'}; see output.log"
    if there == "failed":
        return "failed", str(node.get("error") or reason)
    if was_preempted(reason):
        return "paused", f"the machine was taken away: {reason}"
    if there == "paused" or (there == "running" and node.get("step")):
        return "paused", reason or "the job ended before the run did"
    return "failed", reason or "the job failed before training began; see output.log"


def was_preempted(reason: str) -> bool:
    """Whether the words of a failed job say that its machine was taken away."""
    return any(word in reason.lower() for word in PREEMPTED)


class History:
    """The run history of a workspace."""

    def __init__(self, client: "MLClient", place: Place, say: Say) -> None:
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RedirectPolicy

        self.place, self.say, self._ml = place, say, client
        self._client = PipelineClient(
            ARM,
            policies=[RedirectPolicy(), BearerTokenCredentialPolicy(credential(), f"{ARM}/.default")],
            connection_timeout=timeout_seconds(),
            read_timeout=timeout_seconds(),
        )
        self._api: str | None = None

    def details(self, job: str) -> JobDetails:
        """What is known of a job now. Raises: BackendError."""
        found = patiently(lambda: self._details(job), f"reading the history of job {job!r}", self.say)
        return JobDetails(_reason(found), _seconds(found), dict(found.get("logFiles") or {}))

    def read_log(self, address: str, start: int) -> bytes:
        """A log from the byte `start` on. Raises: BackendError."""
        return patiently(lambda: _read(address, start), "reading the job's log", self.say)

    def _details(self, job: str) -> dict[str, Any]:
        if self._api is None:
            discovery = str(self._ml.workspaces.get(self.place.workspace).discovery_url)
            services = self._get(discovery)
            self._api = str(services.get("history") or services.get("api") or f"https://{urlsplit(discovery).netloc}")
        return self._get(f"{self._api.rstrip('/')}/history/v1.0{self.place.arm_id}/runs/{job}/details")

    def _get(self, address: str) -> dict[str, Any]:
        from azure.core.rest import HttpRequest

        response = self._client.send_request(HttpRequest("GET", address))
        response.raise_for_status()
        found: dict[str, Any] = json.loads(response.content)
        return found


def _read(address: str, start: int) -> bytes:
    from azure.core.exceptions import HttpResponseError
    from azure.storage.blob import BlobClient

    signed = "sig=" in urlsplit(address).query
    blob = BlobClient.from_blob_url(address, credential=None if signed else credential())
    try:
        return bytes(blob.download_blob(offset=start).readall()) if start or _size(blob) else b""
    except HttpResponseError as error:
        if error.status_code in (404, 416):  # not written yet; nothing new
            return b""
        raise


def _size(blob: Any) -> int:
    """An empty blob has no first byte to begin at."""
    return int(blob.get_blob_properties().size)


def _reason(found: dict[str, Any]) -> str:
    """Code and message of the innermost error that says something."""
    error = (found.get("error") or {}).get("error") or found.get("error") or {}
    code, message = str(error.get("code") or ""), " ".join(str(error.get("message") or "").split())[:500]
    inner = error.get("innerError") or {}
    while isinstance(inner.get("innerError"), dict):
        inner = inner["innerError"]
    codes = dict.fromkeys(filter(None, [code, str(inner.get("code") or "")]))
    return ": ".join(filter(None, ["/".join(codes), message]))


def _seconds(found: dict[str, Any]) -> float | None:
    try:
        start, end = (datetime.fromisoformat(found[name]) for name in ("startTimeUtc", "endTimeUtc"))
    except (KeyError, TypeError, ValueError):
        return None
    return max(0.0, (end - start).total_seconds())
