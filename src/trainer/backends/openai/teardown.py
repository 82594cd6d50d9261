"""Removal of what a run left at the service, in the order in which it can go."""

import time
from functools import partial
from typing import TYPE_CHECKING

from trainer.backends.http import Say, failure_of, is_failure, patiently
from trainer.backends.idempotent import LISTED_LOOK_UPS, delete_once, look_for
from trainer.backends.openai.account import AccountDeployment, account_at
from trainer.backends.openai.client import BEARER, FineTuningService
from trainer.backends.openai.copy import STAYS
from trainer.backends.openai.endpoints import deployments_of, name_of
from trainer.backends.openai.jobs import job_of
from trainer.backends.openai.upload import find_file
from trainer.errors import BackendError, ConfigError
from trainer.runs import Run
from trainer.runs.ledger import Entry, Ledger, Thing

if TYPE_CHECKING:
    import httpx2
    from openai import OpenAI

FIRST_WAIT_SECONDS, MOST_WAIT_SECONDS, REMOVAL_SECONDS = 0.25, 20.0, 3600.0
ORDER = ("model", "job", "file")  # a model cannot go while it is deployed, nor a file while a job reads it


def teardown(run: Run, everything: bool, say: Say) -> None:
    """Delete the run's deployments; with `everything` also its model, its job's record (Azure) and its files.

    Raises: ConfigError, when its job has not ended; BackendError.
    """
    remove_deployments(run, say)
    if not everything or not Ledger(run.path).open():
        return
    service = FineTuningService(run.config().openai)
    job = job_of(service, run, times=LISTED_LOOK_UPS)
    if job is not None and run.state in ("validating_files", "queued", "running", "paused"):
        raise ConfigError(
            f"run {run.name!r}: its job is {run.state}, expected one that has ended; first: trainer cancel {run.path}"
        )
    for entry in [entry for entry in Ledger(run.path).open() if entry.thing.kind == "copy"]:
        say(f"copy {entry.thing.key} in {account_at(entry.thing.place).name}: stays, as {STAYS}")
    for kind in ORDER:
        for entry in [entry for entry in Ledger(run.path).open() if entry.thing.kind == kind]:
            _remove(service, run, entry, say)


def remove_deployments(run: Run, say: Say, only: Thing | None = None) -> None:
    """Delete the run's deployments, or one of them, so that they bill no more, and wait until they are gone."""
    settings = run.config().openai
    for entry in deployments_of(run):
        if only is not None and only.identity != entry.thing.identity:
            continue
        deployment = AccountDeployment(settings, account_at(entry.thing.place), entry.thing.key)

        def delete(deployment: AccountDeployment = deployment) -> None:
            _delete_deployment(deployment, say)

        def is_there(deployment: AccountDeployment = deployment) -> bool:
            return deployment.read() is not None

        delete_once(Ledger(run.path), entry.thing, delete, say, is_there)
        say(f"deployment {name_of(entry)}: deleted; it bills no more")


def _delete_deployment(deployment: AccountDeployment, say: Say) -> None:
    """Delete a deployment and wait until it is gone: a model cannot be deleted before.

    One that is still being made refuses it, and is asked again.
    """
    until, wait, asked = time.monotonic() + REMOVAL_SECONDS, FIRST_WAIT_SECONDS, False
    while True:
        asked = asked or deployment.delete()
        there = patiently(deployment.read, "looking at the deployment", say)
        if there is None and asked:
            return
        if time.monotonic() > until:
            raise BackendError(
                f"deployment {deployment.name!r}: is still there; look at it in the portal, and try again"
            )
        time.sleep(wait)
        wait = min(wait * 1.5, MOST_WAIT_SECONDS)


def _remove(service: FineTuningService, run: Run, entry: Entry, say: Say) -> None:
    """Delete a thing, and write down that it is gone. What may exist is looked for by its name."""
    import httpx2

    thing = entry.thing
    name = str(entry.facts.get("id") or "")
    if thing.kind == "file" and not name:
        found = look_for(lambda: find_file(service, thing.key), thing)
        name = "" if found is None else str(found["id"])
    if not name or (thing.kind == "job" and not service.is_azure):
        Ledger(run.path).write(thing, "deleted")  # it never came to be, or only its record stays, which costs nothing
        return

    def deleted(client: "OpenAI") -> "httpx2.Response":
        match thing.kind:
            case "file":
                return client.files.with_raw_response.delete(name).http_response
            case "model":
                return client.models.with_raw_response.delete(name).http_response
        return client.delete(f"/fine_tuning/jobs/{name}", cast_to=httpx2.Response, options=BEARER)

    is_there = partial(_is_there, service, thing.kind, name)
    delete_once(Ledger(run.path), thing, lambda: service.raw(deleted), say, is_there)
    say(f"{thing.kind} {thing.key}: deleted")


def _is_there(service: FineTuningService, kind: str, name: str) -> bool:
    """True if the service still shows it; one that shows no such things is not asked twice."""

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
