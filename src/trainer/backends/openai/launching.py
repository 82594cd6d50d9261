"""From a checked run to its job: files, then the job. Each step is found again if it was taken before."""

from trainer.backends.contract import Plan
from trainer.backends.http import Say
from trainer.backends.idempotent import look_for
from trainer.backends.openai.client import Record, Service
from trainer.backends.openai.jobs import ensure_job, find_job, job_body
from trainer.backends.openai.mirror import note_job
from trainer.backends.openai.names import fact, file_name, job_thing, launch_of, metadata
from trainer.backends.openai.preflight import TuningDetails
from trainer.backends.openai.upload import ensure_file, wait_until_processed
from trainer.errors import BackendError, DataError
from trainer.runs import Run
from trainer.runs.ledger import Ledger


def start(plan: Plan[TuningDetails], run: Run, say: Say) -> None:
    """Write down what the run is made from, and go on from there; the caller holds the run's lock."""
    if run.find_manifest() is None:
        run.write_manifest(plan.details.manifest)
    continue_launch(run, say)


def continue_launch(run: Run, say: Say) -> None:
    """Upload what is not uploaded, and create the job if it does not exist.

    Raises: BackendError, DataError; a run whose job certainly does not exist is then failed.
    """
    config, manifest, launch = run.config(), run.manifest(), launch_of(run)
    service = Service(config.openai)
    try:
        files = {}
        for upload in launch.uploads:
            files[upload.role] = ensure_file(service, run, config, upload, say)
        for upload in launch.uploads:
            wait_until_processed(service, config, upload, files[upload.role], say)
        body = job_body(config, manifest.base.name, files, metadata(run))
        job = ensure_job(service, run, body, launch.bills, say)
    except (BackendError, DataError) as error:
        if not _may_exist(service, run):
            run.set_status("failed", error=str(error))
        raise
    note_job(run, job)
    say(f"job {job['id']}: {job.get('status')}")


def job_of(service: Service, run: Run, times: int = 1) -> str | None:
    """The id of the run's job, None where there is none: of one that was being created the service is asked.

    `times`: how often, as it may list late what it has made. Once is enough only where nothing depends on a None.
    """
    key = _key(service, run)
    if key is None:
        return None
    known = fact(run, "job", key, "id")
    if known is not None or not _may_exist(service, run):
        return None if known is None else str(known)
    training_file = fact(run, "file", file_name(run, "train"), "id")
    found = look_for(lambda: find_job(service, run, training_file), job_thing(run, service.place, ""), times)
    return None if found is None else _known(service, run, found)


def _known(service: Service, run: Run, job: Record) -> str:
    """Write down the job that an interrupted launch has created."""
    thing = job_thing(run, service.place, launch_of(run).bills)
    Ledger(run.path).write(thing, "exists", id=job["id"])
    return str(job["id"])


def _may_exist(service: Service, run: Run) -> bool:
    key = _key(service, run)
    entry = None if key is None else Ledger(run.path).find("job", key)
    return entry is not None and entry.is_open


def _key(service: Service, run: Run) -> str | None:
    """The job's key; None of a run that was stopped before it had a manifest."""
    return job_thing(run, service.place, "").key if run.find_manifest() is not None else None
