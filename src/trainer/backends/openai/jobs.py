"""The job: its states, its body, its one creation, and what it can be asked."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainer.backends.http import Say, failure_of, is_failure, patiently
from trainer.backends.idempotent import LISTED_LOOK_UPS, create_once, look_for
from trainer.backends.openai.client import FineTuningService, Record
from trainer.backends.openai.names import TOKEN_KEY, fact, file_name, job_thing, launch_of, token_of
from trainer.backends.openai.prices import above_cap
from trainer.backends.openai.refusals import explained_job
from trainer.backends.openai.training_types import UNREAD, spellings
from trainer.config.schema import RunConfig
from trainer.errors import BackendError
from trainer.kinds import learns_from_pairs
from trainer.runs import Run
from trainer.runs.ledger import Ledger
from trainer.runs.manifest import Role
from trainer.runs.run import State

if TYPE_CHECKING:
    import httpx2
    from openai import OpenAI

TRAINING_TYPE = "trainingType"  # unknown to the SDK
NUMBERS = ("n_epochs", "batch_size", "learning_rate_multiplier")
METHODS = {"sft": "supervised", "dpo": "dpo"}  # in the service's words
STATES: dict[str, State] = {
    "validating_files": "validating_files",
    "created": "queued",
    "notrunning": "queued",
    "pending": "queued",
    "queued": "queued",
    "running": "running",
    "resuming": "running",
    "pausing": "running",
    "cancelling": "running",
    "paused": "paused",
    "succeeded": "succeeded",
    "completed": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
    "canceled": "cancelled",
    "deleted": "cancelled",
}
ENDED = frozenset({"succeeded", "failed", "cancelled"})


def state_of(word: object) -> State | None:
    """The state in our words; None for one that is new to us."""
    return STATES.get(str(word or "").lower())


def job_body(config: RunConfig, model: str, files: Mapping[Role, str], marks: Mapping[str, str]) -> Record:
    """The body that creates it. `files` holds the ids of `train` and `validation`."""
    settings, training = config.openai, config.training
    is_dated = settings.api_version is not None
    numbers = {name: getattr(training, name) for name in NUMBERS}
    body: Record = {"model": model, "training_file": files["train"]}
    if "validation" in files:
        body["validation_file"] = files["validation"]
    if config.run.suffix:
        body["suffix"] = config.run.suffix
    if training.seed != "auto":
        body["seed"] = training.seed
    if is_dated:  # numbers only, in a place of their own, and no marks
        body["hyperparameters"] = {name: value for name, value in numbers.items() if value != "auto"}
    else:
        word = METHODS[training.method]
        numbers |= {"beta": training.dpo.beta} if learns_from_pairs(training.method) else {}
        body["method"] = {"type": word, word: {"hyperparameters": numbers}}
        body["metadata"] = dict(marks)
    if wandb := settings.wandb.model_dump(exclude_defaults=True):
        body["integrations"] = [{"type": "wandb", "wandb": wandb}]
    if words := spellings(settings):
        body[TRAINING_TYPE] = words[0]
    return body


def ensure_job(service: FineTuningService, run: Run, body: Record, bills: str, say: Say) -> Record:
    """The run's job, which is created unless it is there. Raises: BackendError, with the refusal explained."""
    ledger, thing = Ledger(run.path), job_thing(run, service.place, bills)
    try:
        return create_once(
            ledger,
            thing,
            look_up=lambda: find_job(service, run, body["training_file"]),
            create=lambda: _create(service, body),
            facts_of=lambda made: {"id": made["id"]},
            say=say,
            look_ups=LISTED_LOOK_UPS,
        )
    except BackendError as error:
        raise explained_job(error, service.is_azure, service.url) from error.__cause__


def _create(service: FineTuningService, body: Record) -> Record:
    """The one creation; a body that the route could not read has made nothing, so its next spelling may be tried."""
    sent, words = dict(body), spellings(service.settings)
    sent.pop(TRAINING_TYPE, None)

    def create(word: str | None) -> Record:
        extra = {} if word is None else {TRAINING_TYPE: word}
        return service.ask(
            lambda client: client.fine_tuning.jobs.with_raw_response.create(**sent, extra_body=extra).http_response,
            "id",
        )

    for word in words[:-1]:
        try:
            return create(word)
        except Exception as error:
            if not is_failure(error) or failure_of(error).status != 400 or UNREAD not in str(error).lower():
                raise
    return create(words[-1] if words else None)


def note_job(run: Run, job: Record) -> None:
    """Write down that the job exists. One that was found late may have ended; the run has once its files are here."""
    run.event(f"job {job['id']} was created", job=str(job["id"]))
    state = state_of(job.get("status")) or "queued"
    run.set_status("running" if state in ENDED else state, job=str(job["id"]), error=None)


def find_job(service: FineTuningService, run: Run, training_file: str | None) -> Record | None:
    """The run's job among all: the one that trains on its file, which no other has, or that bears its token."""

    def page(client: "OpenAI", query: Mapping[str, Any]) -> "httpx2.Response":
        return client.fine_tuning.jobs.with_raw_response.list(extra_query=dict(query)).http_response

    token = token_of(run)
    for job in service.listed(page, "reading the list of jobs"):
        marks = job.get("metadata")
        marked = isinstance(marks, dict) and marks.get(TOKEN_KEY) == token
        if marked or (training_file is not None and job.get("training_file") == training_file):
            return job
    return None


def job_of(service: FineTuningService, run: Run, times: int = 1) -> str | None:
    """The id of the run's job, None where it has none. The service is asked for one whose creation was interrupted.

    `times`: how often, as it may list late what it has made. Once is enough only where nothing depends on a None.
    """
    if run.find_manifest() is None:
        return None
    thing = job_thing(run, service.place, launch_of(run).bills)
    known = fact(run, "job", thing.key, "id")
    if known is not None or not may_exist(service, run):
        return None if known is None else str(known)
    training_file = fact(run, "file", file_name(run, "train"), "id")
    found = look_for(lambda: find_job(service, run, training_file), thing, times)
    if found is None:
        return None
    Ledger(run.path).write(thing, "exists", id=found["id"])
    return str(found["id"])


def may_exist(service: FineTuningService, run: Run) -> bool:
    """True if the ledger leaves open that the run has a job."""
    entry = Ledger(run.path).find("job", job_thing(run, service.place, "").key)
    return entry is not None and entry.is_open


def has_jobs(service: FineTuningService, say: Say) -> bool:
    """True where there is one job, whichever it is. Raises: BackendError, as `read_jobs`."""
    return bool(read_jobs(service, say)["data"])


def read_jobs(service: FineTuningService, say: Say) -> Record:
    """Read one job, whichever it is. Raises: BackendError, where the service or the identity has no fine-tuning."""
    return patiently(
        lambda: service.ask(
            lambda client: client.fine_tuning.jobs.with_raw_response.list(extra_query={"limit": 1}).http_response,
            "data",
        ),
        "reading the list of fine-tuning jobs",
        say,
    )


def get_job(service: FineTuningService, job_id: str) -> Record:
    """The job as the service describes it."""
    return service.ask(lambda client: client.fine_tuning.jobs.with_raw_response.retrieve(job_id).http_response, "id")


def order(service: FineTuningService, job_id: str, verb: str, say: Say) -> str:
    """Ask the job to `pause`, `resume` or `cancel`; returns why its state does not allow that, where it does not.

    Raises: BackendError.
    """

    def ask() -> str:
        try:
            service.ask(
                lambda client: getattr(client.fine_tuning.jobs.with_raw_response, verb)(job_id).http_response, "id"
            )
        except Exception as error:
            if not is_failure(error) or failure_of(error).status not in (400, 409):
                raise
            return str(failure_of(error))
        return ""

    return patiently(ask, f"asking the job {job_id} to {verb}", say)


def end_above_cap(service: FineTuningService, run: Run, say: Say) -> None:
    """Cancel the job if its price, now that its epochs are known, is above the run's cap. Raises: BackendError."""
    status = run.status()
    if status["state"] in ENDED or not status.get("job") or not (reason := above_cap(run)):
        return
    say(reason)
    run.event(reason, level="warning")
    order(service, str(status["job"]), "cancel", say)


def hyperparameters(job: Record) -> dict[str, float]:
    """The numbers that the service has chosen, or was given; empty as long as it says none."""
    method = job.get("method")
    own = [method.get(word) for word in METHODS.values()] if isinstance(method, dict) else []
    places = [part.get("hyperparameters") for part in own if isinstance(part, dict)] + [job.get("hyperparameters")]
    found: dict[str, float] = {}
    for place in places:
        for name in (*NUMBERS, "beta"):
            value = place.get(name) if isinstance(place, dict) else None
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
                found.setdefault(name, value)
    return found
