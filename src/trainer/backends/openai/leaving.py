"""Removing what a run left at the service, in the order in which it can be removed."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from trainer.backends.http import Say, failure_of, is_failure
from trainer.backends.idempotent import LISTED_LOOK_UPS, delete_once, look_for
from trainer.backends.openai.client import Service
from trainer.backends.openai.deployments import remove_deployments
from trainer.backends.openai.jobs import delete_job
from trainer.backends.openai.launching import job_of
from trainer.backends.openai.upload import find_file
from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.ledger import Entry, Ledger

if TYPE_CHECKING:
    import httpx2
    from openai import OpenAI

ORDER = ("model", "job", "file")  # a model cannot go while it is deployed, nor a file while a job reads it


def teardown(run: Run, everything: bool, say: Say) -> None:
    """Delete the run's deployments; with `everything` also its model, its job's record (Azure) and its files.

    Raises: ConfigError, when its job has not ended; BackendError.
    """
    remove_deployments(run, say)
    if not everything or not Ledger(run.path).open():
        return
    service = Service(run.config().openai)
    job = job_of(service, run, times=LISTED_LOOK_UPS)
    if job is not None and run.state in ("validating_files", "queued", "running", "paused"):
        raise ConfigError(
            f"run {run.name!r}: its job is {run.state}, expected one that has ended; first: trainer cancel {run.path}"
        )
    for kind in ORDER:
        for entry in [entry for entry in Ledger(run.path).open() if entry.thing.kind == kind]:
            _remove(service, run, entry, say)


def _remove(service: Service, run: Run, entry: Entry, say: Say) -> None:
    """Delete a thing, and write down that it is gone. What may exist is looked for by its name."""
    thing = entry.thing
    name = str(entry.facts.get("id") or "")
    if thing.kind == "file" and not name:
        found = look_for(lambda: find_file(service, thing.key), thing)
        name = "" if found is None else str(found["id"])
    delete: Callable[[], object] | None = None
    match thing.kind:
        case "file" if name:
            delete = lambda: service.raw(lambda client: client.files.with_raw_response.delete(name).http_response)  # noqa: E731
        case "model" if name:
            delete = lambda: service.raw(lambda client: client.models.with_raw_response.delete(name).http_response)  # noqa: E731
        case "job" if name and service.is_azure:
            delete = lambda: delete_job(service, name)  # noqa: E731
    if delete is None:
        Ledger(run.path).write(thing, "deleted")  # it never came to be, or only its record stays, which costs nothing
        return
    delete_once(Ledger(run.path), thing, delete, say, lambda: _is_there(service, thing.kind, name))
    say(f"{thing.kind} {thing.key}: deleted")


def _is_there(service: Service, kind: str, name: str) -> bool:
    """Whether the service still shows it; one that shows no such things is not asked twice."""

    def shown(client: "OpenAI") -> "httpx2.Response":
        match kind:
            case "file":
                return client.files.with_raw_response.retrieve(name).http_response
            case "model":
                return client.models.with_raw_response.retrieve(name).http_response
        return client.fine_tuning.jobs.with_raw_response.retrieve(name).http_response

    try:
        found = service.ask(shown, "id")
    except Exception as error:
        if not is_failure(error) or failure_of(error).execution != "refused":
            raise
        return False
    return str(found.get("status")) not in ("deleting", "deleted")
