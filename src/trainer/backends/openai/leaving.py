"""Removing what a run left at the service, in the order in which it can be removed."""

from collections.abc import Callable

from trainer.backends.http import Say
from trainer.backends.once import delete_once
from trainer.backends.openai.client import Service
from trainer.backends.openai.deployments import remove_deployments
from trainer.backends.openai.jobs import delete_job
from trainer.backends.openai.launching import job_of
from trainer.backends.openai.upload import find_file
from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.ledger import Entry, Ledger

ORDER = ("model", "job", "file")  # a model cannot go while it is deployed, nor a file while a job reads it


def teardown(run: Run, everything: bool, say: Say) -> None:
    """Delete the run's deployments; with `everything` also its model, its job's record (Azure) and its files.

    Raises: ConfigError, when its job has not ended; BackendError.
    """
    remove_deployments(run, say)
    if not everything or not Ledger(run.path).open():
        return
    service = Service(run.config().openai)
    job = job_of(service, run, say)
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
        found = find_file(service, thing.key)
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
    delete_once(Ledger(run.path), thing, delete, say)
    say(f"{thing.kind} {thing.key}: deleted")
