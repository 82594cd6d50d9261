"""Follow a job until it has ended: take over its state, its records and its log, again and again.

The state is the service's word for the job, read beside the status that the node writes. The log, and the reason of a
failure, come from the workspace's run history: the API behind the studio's pages.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainer.backends.arm import ARM
from trainer.backends.azureml.datastore import open_datastore
from trainer.backends.azureml.download import Mirror, bring_home
from trainer.backends.azureml.image import with_advice
from trainer.backends.azureml.job import JobPlan, newest_job, prefix_of
from trainer.backends.azureml.workspace import Place, credential, polling_seconds, read_workspace, word_of
from trainer.backends.http import Say, failure_of, is_failure, patience_seconds, patiently, timeout_seconds
from trainer.errors import BackendError, ExitCode
from trainer.runs import Run
from trainer.runs.ledger import Entry, Ledger, updated
from trainer.runs.lifecycle import last_output, printed
from trainer.runs.process import this_process
from trainer.runs.run import OUTPUT, Outcome, State, now

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
# What the command printed; with several processes that of the first one. Before it starts, the building of its image.
LOGS = (
    "user_logs/std_log.txt",
    "user_logs/std_log_process_0.txt",
    "user_logs/std_log_process_00.txt",
    "azureml-logs/20_image_build_log.txt",
)


@dataclass(frozen=True, slots=True)
class JobDetails:
    """A job in the run history. `logs` maps names to addresses; a signed address needs no credential."""

    reason: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    logs: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """Time that it ran; None where the history does not say it."""
        if self.started is None or self.ended is None:
            return None
        return max(0.0, (self.ended - self.started).total_seconds())

    @property
    def log(self) -> str | None:
        """The name of the log that says most; None before there is one."""
        return next((name for name in LOGS if name in self.logs), None)


class Watch:
    """One run's job and everything about it that is read."""

    def __init__(self, run: Run, client: "MLClient", place: Place, plan: JobPlan, say: Say) -> None:
        self.run, self.client, self.plan, self.say = run, client, plan, say
        self.config = run.config()
        self.history = History(place, say)
        self.mirror = Mirror(run, open_datastore(client, self.config.azureml.datastore, prefix_of(plan.stem), say))
        self.shown_job = ""  # the job whose output has been shown line by line
        self._shown = False

    def step(self, tell: bool) -> bool:
        """Bring the run's files up to date once; whether the job has ended. Raises: BackendError."""
        entry = newest_job(self.run)
        assert entry is not None
        name = entry.thing.key
        job = patiently(lambda: self.client.jobs.get(name), f"reading the job {name!r}", self.say)
        self.mirror.update()
        details, status = self._details(name), word_of(job.status)
        self._take_log(details, name, tell, is_final(status))
        if is_final(status):
            self._end(status, details)
            return True
        self._note_start(entry, status, details)
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
        ran_at_all = entry.created_at if status == "Completed" else None
        times = {
            "started_at": _as_text(details.started) or entry.facts.get("started_at") or ran_at_all,
            "ended_at": entry.facts.get("ended_at") or _as_text(details.ended) or now(),
        }
        ledger.write(ended, "exists", status=status, seconds=details.seconds, **times)
        state, reason = end_of(status, self.mirror.node, details.reason)
        if state == "failed" and self.mirror.node.get("state") != "failed":
            lines = printed(self.run)
            reason = with_advice(f"{reason.rstrip('.')}; its output ends: {lines[-1]}" if lines else reason)
        if state == "succeeded":
            checkpoints = self.config.azureml.checkpoints == "all"
            bring_home(self.run, self.mirror.store, checkpoints, self.say)
        if self.run.state != state:
            words = f"job {entry.thing.key} is {status}" + (f": {reason}" if reason else "")
            self.run.event(words, level="info" if state == "succeeded" else "warning", kind="job", status=status)
        self.run.set_status(state, **self._of_the_node(), job_status=status, error=reason or None)

    def _note_start(self, entry: Entry, status: str, details: JobDetails) -> None:
        """From its start on a job costs; where the history does not say when, from the first look at it running."""
        seen = now() if state_of(status, "queued") == "running" else None
        if entry.facts.get("started_at") is None and (started := _as_text(details.started) or seen) is not None:
            Ledger(self.run.path).write(entry.thing, "exists", started_at=started)

    def _of_the_node(self) -> dict[str, Any]:
        return {name: value for name, value in self.mirror.node.items() if name not in OWN}

    def _details(self, job: str) -> JobDetails:
        """Log and reason; a run continues without them where the history cannot be read."""
        try:
            return self.history.details(job)
        except BackendError as error:
            if not self._shown:
                self.say(f"{error}\nthe run is followed without its log")
                self._shown = True
            return JobDetails()

    def _take_log(self, details: JobDetails, job: str, tell: bool, ended: bool) -> None:
        """Add to output.log what the job has printed since. A second job has a log of its own."""
        name, status = details.log, self.run.status()
        if name is None:
            return
        is_known = (status.get("log_of"), status.get("log_name", LOGS[0])) == (job, name)
        start = int(status.get("log_bytes", 0)) if is_known else 0
        new = self.history.read_log(details.logs[name], start)
        taken = new if ended else new[: new.rfind(b"\n") + 1]
        if not taken:
            return
        with (self.run.path / OUTPUT).open("ab") as file:
            file.write(taken if taken.endswith(b"\n") else taken + b"\n")
        self.run.set_status(self.run.state, log_of=job, log_name=name, log_bytes=start + len(taken))
        if tell:
            self.shown_job = job
            for line in taken.decode(errors="replace").splitlines():
                self.say(line.rpartition("\r")[2])


def advance(watch: Watch, resubmit: Callable[[], bool], tell: bool) -> bool:
    """Bring the run up to date once, and give it another job where it lost its machine; whether it has ended."""
    return watch.step(tell) and not (watch.run.state == "paused" and resubmit())


def watch_to_the_end(watch: Watch, resubmit: Callable[[], bool]) -> Outcome:
    """Follow until the run has ended. `resubmit` gives a run that lost its machine another job, where it may.

    Raises: BackendError, when the service refuses, or stays out of reach.
    """
    heard = time.monotonic()
    while True:
        try:
            ended = advance(watch, resubmit, tell=True)
            heard = time.monotonic()
        except BackendError as error:
            if not _may_come_back(error) or time.monotonic() - heard > SILENCE * patience_seconds():
                raise
            watch.say(f"{error}\nthe job continues; still trying")
            ended = False
        if ended:
            return outcome(watch.run, watch.shown_job)
        time.sleep(polling_seconds())


def wait_for_end(watch: Watch) -> None:
    """Give a job with a signal to end a little time for it; later looks at the run find it ended."""
    until = time.monotonic() + END_SECONDS
    while not watch.step(tell=False) and time.monotonic() < until:
        time.sleep(polling_seconds())


def outcome(run: Run, shown_job: str) -> Outcome:
    """Exit code and message for a run's last state. `shown_job`: the job whose output was shown line by line."""
    status = run.status()
    reason, again = status.get("error") or "", f"resume with: trainer resume {run.path}"
    match run.state:
        case "succeeded":
            return Outcome(ExitCode.DONE, f"run {run.name!r} has succeeded; its adapter is in {run.adapter}")
        case "paused":
            return Outcome(ExitCode.RESUMABLE, f"run {run.name!r} was stopped: {reason}; {again}")
        case "cancelled":
            return Outcome(ExitCode.RUN_FAILED, f"run {run.name!r} was cancelled; its checkpoints are kept, {again}")
    lines = [] if shown_job == status.get("job") else last_output(run)
    end = "\n  ".join(["\nits output ended with:", *lines]) if lines else ""
    return Outcome(ExitCode.RUN_FAILED, f"run {run.name!r} has failed: {reason}; see {run.path / OUTPUT}{end}")


def _may_come_back(error: BackendError) -> bool:
    """True if waiting can help: the network, the service's bad moments, and a login that has to be renewed."""
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
    """True if the words of a failed job say that its machine was taken away."""
    return any(word in reason.lower() for word in PREEMPTED)


class History:
    """The run history of a workspace."""

    def __init__(self, place: Place, say: Say) -> None:
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RedirectPolicy

        self.place, self.say = place, say
        self._client = PipelineClient(
            ARM,
            policies=[RedirectPolicy(), BearerTokenCredentialPolicy(credential(), f"{ARM}/.default")],
            connection_timeout=timeout_seconds(),
            read_timeout=timeout_seconds(),
        )
        self._api: str | None = None

    def details(self, job: str) -> JobDetails:
        """Read the job's present state from the service. Raises: BackendError."""
        found = patiently(lambda: self._details(job), f"reading the history of job {job!r}", self.say)
        times = (_time(found, "startTimeUtc"), _time(found, "endTimeUtc"))
        return JobDetails(_reason(found), *times, dict(found.get("logFiles") or {}))

    def read_log(self, address: str, start: int) -> bytes:
        """A log from the byte `start` on. Raises: BackendError."""
        return patiently(lambda: _read(address, start), "reading the job's log", self.say)

    def _details(self, job: str) -> dict[str, Any]:
        return self._get(f"{self._find_api().rstrip('/')}/history/v1.0{self.place.arm_id}/runs/{job}/details")

    def address(self) -> str:
        """Return the address at which it answers this machine. Raises: BackendError, if it does not."""
        return patiently(self._find_api, "looking for the run history", self.say)

    def _find_api(self) -> str:
        """From the discovery service, whose address azure-ai-ml leaves out for hubs and projects."""
        if self._api is None:
            workspace = read_workspace(self.place, self.say) or {}
            discovery = str((workspace.get("properties") or {}).get("discoveryUrl") or "")
            if not discovery.startswith("https://"):
                raise BackendError(
                    f"the workspace {self.place.workspace!r}: names no discovery service, expected an address; "
                    "is it a workspace of Azure Machine Learning?"
                )
            services = self._get(discovery)
            self._api = str(services.get("history") or services.get("api") or f"https://{urlsplit(discovery).netloc}")
        return self._api

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


def _time(found: dict[str, Any], name: str) -> datetime | None:
    """A time of the history, which is UTC also where it does not say so; None where it holds none."""
    try:
        told = datetime.fromisoformat(found[name])
    except (KeyError, TypeError, ValueError):
        return None
    return told if told.tzinfo is not None else told.replace(tzinfo=UTC)


def _as_text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
