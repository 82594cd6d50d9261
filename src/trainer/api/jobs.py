"""`/v1/fine_tuning/jobs`: a job is a run of the queue; its routes read run files and call a backend's verbs."""

import os
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from trainer.api.admission import end_cancelled, ensure_admission
from trainer.api.bodies import read
from trainer.api.errors import ApiError, invalid, not_found
from trainer.api.idempotency import one_id
from trainer.api.job import ENDED, Job, new_id
from trainer.api.job_body import JobBody
from trainer.api.job_events import JobStream, checkpoints_of, events_of
from trainer.api.job_list import all_jobs, find
from trainer.api.job_start import start_job
from trainer.api.job_state import plain, shown_job, state_of
from trainer.api.keys import api_settings_of, caller_of
from trainer.api.pages import limit_of, page_of, with_ends
from trainer.api.results import settle
from trainer.api.tuned import find_model
from trainer.backends.choose import choose
from trainer.backends.http import hurried
from trainer.errors import BackendError, TrainerError
from trainer.kinds import executes_here
from trainer.runs import flock
from trainer.runs.ledger import Ledger
from trainer.runs.ownership import MARKER
from trainer.web.routes import Access, Handler, Route

WAIT_SECONDS = 3.0  # for a step to end; whoever asks again sees the rest
MOST_LISTED, MOST_EVENTS = 100, 1000


def find_job(root: Path, owner: str, id: str) -> Job:  # noqa: A002  # the name in the document
    """A job of this owner. Raises: ApiError, where there is none or it is another's."""
    if (job := find(root, id)) is not None and job.owner == owner:
        return job
    raise not_found("fine-tuning job", id)


def create(request: Request) -> Response:
    """Make a job; its files are validated afterwards."""
    body, settings = read(request, JobBody), api_settings_of(request)
    digest = sha256(body.model_dump_json().encode()).hexdigest()
    with one_id(request, f"fine_tuning.job {digest}", new_id) as id_:
        job = start_job(settings, caller_of(request), body, id_)
    ensure_admission(settings)
    return JSONResponse(shown_job(job))


def list_jobs(request: Request) -> Response:
    """A page of the caller's jobs, the newest first."""
    root, owner, query = api_settings_of(request).root, caller_of(request).name, request.query_params
    limit = limit_of(query, 20, MOST_LISTED)
    wanted = {name[9:-1]: value for name, value in query.items() if name.startswith("metadata[") and name[-1] == "]"}
    if "metadata" in query and query["metadata"] != "null":
        raise invalid("metadata", "expected metadata[KEY]=VALUE, or null for jobs without metadata")

    def matches(job: Job) -> bool:
        given = job.metadata or {}
        return job.owner == owner and wanted.items() <= given.items() and not (given and "metadata" in query)

    jobs = [job for job in all_jobs(root) if matches(job)]
    return JSONResponse(page_of(jobs, query.get("after"), limit, lambda job: _shown(root, job)))


def retrieve(request: Request) -> Response:
    """One job, as it is now."""
    return JSONResponse(_shown(*_asked(request)))


def cancel(request: Request) -> Response:
    """End a job for good, also one that is being validated."""
    root, job = _asked(request)
    if (state := state_of(job)) in ENDED:
        raise ApiError(400, f"Job has already completed: {state}", "job_ended", "id")
    if job.is_admitted or not _cancelled_early(job):
        with hurried():
            _control(job, lambda: choose(job.run.backend).cancel(job.run, _silent, WAIT_SECONDS))
    return JSONResponse(_shown(root, job))


def pause(request: Request) -> Response:
    """Stop a job with a checkpoint, or take it out of the queue."""
    root, job = _asked(request)
    if (state := state_of(job)) not in ("queued", "running"):
        raise ApiError(400, f"Only a job that runs or is queued can be paused, this one is {state}.", "job_state", "id")
    _control(job, lambda: choose(job.run.backend).pause(job.run, _silent, WAIT_SECONDS))
    return JSONResponse(_shown(root, job))


def resume(request: Request) -> Response:
    """Let a paused job wait for its turn again; one that a service has begun, at the service."""
    root, job = _asked(request)
    if (state := state_of(job)) != "paused":
        raise ApiError(400, f"Only a paused job can be resumed, this one is {state}.", "job_state", "id")
    _control(job, lambda: _resume(job))
    return JSONResponse(_shown(root, job))


def events(request: Request) -> ASGIApp:
    """Events, the newest first; with `stream=true` as they happen, from the beginning on."""
    _, job = _asked(request)
    query = request.query_params
    if query.get("stream") == "true":
        return JobStream(request, job).answer()
    newest = events_of(job)[::-1]
    return JSONResponse(page_of(newest, query.get("after"), limit_of(query, 20, MOST_EVENTS), lambda one: one.shown))


def checkpoints(request: Request) -> Response:
    """Checkpoints that can be used as models, the newest first."""
    _, job = _asked(request)
    query = request.query_params
    found = list(checkpoints_of(job))
    page = page_of(found, query.get("after"), limit_of(query, 10, MOST_LISTED), lambda one: one.shown)
    return JSONResponse(with_ends(page))


def _asked(request: Request) -> tuple[Path, Job]:
    root = api_settings_of(request).root
    job = find_job(root, caller_of(request).name, request.path_params["id"])
    settle(job, root)
    return root, job


def _shown(root: Path, job: Job) -> dict[str, object]:
    settle(job, root)
    return shown_job(job)


def _silent(message: str) -> None:
    """Backends tell people at a terminal what they do; a caller reads the job."""


def _control(job: Job, act: Callable[[], None]) -> None:
    """Raises: ApiError, with the backend's reason."""
    try:
        act()
    except BackendError as error:
        raise ApiError(502, plain(job, str(error)), "backend_error", type="server_error") from None
    except TrainerError as error:
        raise ApiError(400, plain(job, str(error)), "job_state", "id") from None


def _resume(job: Job) -> None:
    run = job.run
    backend = choose(run.backend)
    if executes_here(run.backend) or not Ledger(run.path).entries():
        backend.enqueue(run, _silent)
    else:
        backend.resume(run, _silent)
        backend.detach(run, _silent)


def _cancelled_early(job: Job) -> bool:
    """End a job that waits for its validation, or ask the process that validates it; False once it is admitted.

    A request that comes as the validation ends may be overlooked by it: then the run waits in the queue, as one sees.
    """
    handle = flock.take(job.run.path / MARKER)
    if handle is not None:
        try:
            if not job.is_admitted and state_of(job) not in ENDED:
                end_cancelled(job)
            return not job.is_admitted
        finally:
            os.close(handle)
    job.run.ask("cancel")
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until and not job.is_admitted and state_of(job) not in ENDED:
        time.sleep(0.05)
    return not job.is_admitted


def _route(path: str, handler: Handler, method: str) -> Route:
    return Route(f"/v1/fine_tuning/jobs{path}", handler, Access.API, methods=(method,))


ROUTES = (
    _route("", create, "POST"),
    _route("", list_jobs, "GET"),
    _route("/{id}", retrieve, "GET"),
    _route("/{id}/events", events, "GET"),
    _route("/{id}/checkpoints", checkpoints, "GET"),
    *(_route(f"/{{id}}/{handler.__name__}", handler, "POST") for handler in (cancel, pause, resume)),
)

__all__ = ["ROUTES", "find_job", "find_model"]
