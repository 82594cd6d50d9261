"""The beginning of a job: its request is held to the server's offers and the caller's quota, and becomes a run.

Nothing of its rows is read here, so that the answer takes milliseconds. The run's folder appears whole under the job's
id: a server that is killed has made the job or has not, and whoever has the id can tell.
"""

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.api.errors import ApiError, invalid
from trainer.api.files import FINE_TUNE, FileRecord, find_file
from trainer.api.folders import home_of
from trainer.api.job import DATA, Job, JobFile, Role, job_by_id
from trainer.api.job_body import Integration, JobBody
from trainer.api.job_list import num_open
from trainer.api.keys import Caller
from trainer.api.settings import ApiSettings, BaseOffer
from trainer.api.tuned import TUNED, find_model
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError, quoted, similar
from trainer.runs import Run, create_run, flock

DEFAULT_SEED = 42  # of training.seed: auto
METHODS = {"supervised": "sft", "dpo": "dpo"}
CONFIG_SUFFIX = re.compile(r"[A-Za-z0-9_-]{1,40}")
KEPT_AS: dict[Role, str] = {"training": "train.jsonl", "validation": "validation.jsonl"}


@dataclass(frozen=True, slots=True)
class _Model:
    """Meaning of a request's `model`: an offer by its name, and what `model.base` becomes."""

    offer: BaseOffer
    name: str
    base: str


def start_job(settings: ApiSettings, caller: Caller, body: JobBody, id_: str) -> Job:
    """The job of a request, or the one that has its id already: a request that was repeated makes no other.

    Raises: ApiError, for what no job can be, is not the caller's, or is more than its quota.
    """
    with _one_at_a_time(settings.root, caller):
        if (known := job_by_id(settings.root, id_)) is not None:
            return known
        model = _model_of(settings, caller, body.model)
        records = _find_files(settings.root, caller, body)
        _hold_quota(settings.root, caller)
        return _made(settings.root, caller, body, id_, model, records)


@contextmanager
def _one_at_a_time(root: Path, caller: Caller) -> Iterator[None]:
    """Between this and other servers: so that no quota is passed."""
    home = home_of(root, caller.name)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = flock.wait_for(home / "jobs.lock")
    try:
        yield
    finally:
        os.close(handle)


def _model_of(settings: ApiSettings, caller: Caller, name: str) -> _Model:
    """Raises: ApiError, for a model that cannot be tuned here."""
    if (offer := settings.bases.get(name)) is not None:
        return _Model(offer, name, offer.base)
    if not name.startswith(TUNED):
        known = similar(name, settings.bases)
        words = f"is {quoted(name)}, expected one of {', '.join(sorted(settings.bases))}, or a tuned one{known}"
        raise ApiError(400, f"model: {words}", "model_not_available", "model")
    tuned = find_model(settings.root, caller.name, name, "model")
    offer = settings.bases.get(tuned.job.base)
    if offer is None:
        words = f"is of the base {tuned.job.base!r}, which this server no longer offers"
        raise ApiError(400, f"model: {words}", "model_not_available", "model")
    return _Model(offer, tuned.job.base, tuned.reference)


def _find_files(root: Path, caller: Caller, body: JobBody) -> dict[Role, FileRecord]:
    """Raises: ApiError, for a file that is not there or not for training."""
    wanted: dict[Role, str] = {"training": body.training_file}
    if body.validation_file is not None:
        wanted["validation"] = body.validation_file
    found: dict[Role, FileRecord] = {}
    for role, id_ in wanted.items():
        param = f"{role}_file"
        try:
            found[role] = record = find_file(root, caller.name, id_)
        except ApiError:
            words = f"{param}: no file {id_[:200]!r}, expected the id of one that was uploaded with this key"
            raise ApiError(400, words, "file_not_found", param) from None
        if record.purpose != FINE_TUNE:
            raise invalid(param, f"is a file for {record.purpose}, expected one for {FINE_TUNE}")
    return found


def _hold_quota(root: Path, caller: Caller) -> None:
    """Raises: ApiError, where the caller has as many jobs as its key may have."""
    if caller.max_jobs is not None and (count := num_open(root, caller.name)) >= caller.max_jobs:
        words = f"{count} jobs of this key wait or run, and it may have {caller.max_jobs}; wait until one has ended"
        raise ApiError(429, words, "job_quota_exceeded", type="rate_limit_error")


def _made(root: Path, caller: Caller, body: JobBody, id_: str, model: _Model, records: dict[Role, FileRecord]) -> Job:
    kept = {role: JobFile(record.id, record.filename, KEPT_AS[role]) for role, record in records.items()}
    run = Run(root / id_)
    job = Job(
        run,
        id_,
        caller.name,
        int(time.time()),
        body.model,
        model.name,
        kept["training"],
        kept.get("validation"),
        body.kind,
        body.numbers,
        DEFAULT_SEED if body.seed is None else body.seed,
        body.suffix,
        body.metadata,
        [one.model_dump(exclude_none=True) for one in body.integrations or ()],
    )
    config = _config_of(job, model, body)
    if body.seed is None and config.training.seed != "auto":
        job = replace(job, seed=config.training.seed)

    def fill(made: Run) -> None:
        job.write(made.path)
        (made.path / DATA).mkdir()
        for role, record in records.items():
            _keep(record.path(root), made.path / DATA / kept[role].kept_as, f"{role}_file")
        made.event(f"Created fine-tuning job: {id_}")

    create_run(config, fill)
    return job


def _keep(source: Path, target: Path, param: str) -> None:
    """The job's own hold on a file's content. Raises: ApiError, where it was deleted meanwhile."""
    try:
        try:
            target.hardlink_to(source)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without links
            shutil.copyfile(source, target)
    except FileNotFoundError:
        raise ApiError(
            400, f"{param}: was deleted meanwhile, expected it to be there", "file_not_found", param
        ) from None


def _config_of(job: Job, model: _Model, body: JobBody) -> RunConfig:
    """The run's settings: those of the offer, and above them those of the request. Raises: ApiError."""
    values: dict[str, Any] = {
        "model.base": model.base,
        "data.train": str((job.run.path / DATA / job.training_file.kept_as).absolute()),
        "data.validation": None,
        "training.method": METHODS[job.method],
        "run.name": job.id,
        "run.root": str(job.run.path.parent),
    }
    if job.validation_file is not None:
        values["data.validation"] = str((job.run.path / DATA / job.validation_file.kept_as).absolute())
    if body.seed is not None:
        values["training.seed"] = body.seed
    for name, number in job.numbers.items():
        values["training.dpo.beta" if name == "beta" else f"training.{name}"] = number
    if "learning_rate_multiplier" in job.numbers:
        values["training.learning_rate"] = None  # an offer's own
    if job.suffix and CONFIG_SUFFIX.fullmatch(job.suffix):
        values["run.suffix"] = job.suffix
    for one in body.integrations or ():
        values |= _tracking(one)
    try:
        return model.offer.run_config(values)
    except ConfigError as error:
        words = f"the offer of {model.name!r} on this server cannot be trained: {error}"
        raise ApiError(500, words, "invalid_offer", "model", "server_error") from None


def _tracking(one: Integration) -> dict[str, Any]:
    named = {f"tracking.wandb.{name}": value for name, value in one.wandb.model_dump(exclude_none=True).items()}
    return {"tracking.report_to": ["wandb"]} | named
