"""The old side: a job at the service that made it, read without changing anything, and what of it cannot be had."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainer.backends.http import Say, failure_of, found
from trainer.backends.openai.client import FineTuningService, Record
from trainer.backends.openai.clone import FILES
from trainer.backends.openai.jobs import get_job
from trainer.backends.openai.upload import read_content
from trainer.errors import BackendError, ConfigError
from trainer.runs.manifest import Role

if TYPE_CHECKING:
    import httpx2
    from openai import OpenAI

JOB = "ftjob-"
MODEL = re.compile(r"ft:|.*\.ft-[0-9a-f]{32}")  # of OpenAI, of Azure
CHECKPOINT = re.compile(r":ckpt-step-\d+$")
REFUSED = (400, 401, 403, 404, 409, 410)  # of a file's content: asking again changes nothing


@dataclass(frozen=True, slots=True)
class OldJob:
    """All of a job that could be read. `model` is what answers; `job` is empty where the job itself is gone."""

    source: str
    model: str
    job: Record
    files: Mapping[Role, bytes] = field(default_factory=dict)
    results: bytes | None = None  # the service's results.csv
    checkpoints: tuple[Record, ...] = ()
    lost: tuple[str, ...] = ()  # what could not be read, a sentence each with what to do


def is_job(source: str) -> bool:
    """True for the id of a job, as opposed to a tuned model's name."""
    return source.startswith(JOB)


def refuse_unclear(source: str) -> None:
    """Raises: ConfigError, for a text that is neither a job's id nor a tuned model's name."""
    if not is_job(source) and not MODEL.match(source):
        raise ConfigError(
            f"SOURCE: is {source!r}, expected a job (ftjob-…) or a tuned model (ft:BASE:… or BASE.ft-…); see them "
            "with: trainer models --all"
        )


def read_old(service: FineTuningService, source: str, given: "set[Role]", say: Say) -> OldJob:
    """Read the job; `given` are the roles whose files the user has. Raises: ConfigError, BackendError."""
    job = _find(service, source, say)
    if job is None and (is_job(source) or "train" not in given):
        raise ConfigError(_no_job(service, source))
    if job is None:
        gone = f"the job of {source} is gone, or of another project: its settings and metrics are not known"
        return OldJob(source, source, {}, lost=(f"{gone}; training.… of the config may be set by KEY=VALUE",))
    files, lost = _files(service, job, given, say)
    results, no_results = _results(service, job, say)
    checkpoints = tuple(_checkpoints(service, job))
    model = source if not is_job(source) else str(job.get("fine_tuned_model") or "")
    if not model:
        lost.append(
            f"the job {job['id']} is {job.get('status')} and has made no model: there is nothing to compare with"
        )
    return OldJob(source, model, job, files, results, checkpoints, (*lost, *no_results))


def _find(service: FineTuningService, source: str, say: Say) -> Record | None:
    if is_job(source):
        return found(lambda: get_job(service, source), f"reading the job {source}", say)
    wanted = CHECKPOINT.sub("", source)

    def page(client: "OpenAI", query: Mapping[str, Any]) -> "httpx2.Response":
        return client.fine_tuning.jobs.with_raw_response.list(extra_query=dict(query)).http_response

    listed = service.listed(page, "reading the list of jobs")
    return next((job for job in listed if job.get("fine_tuned_model") == wanted), None)


def _no_job(service: FineTuningService, source: str) -> str:
    other = "" if is_job(source) else ", or give its rows: --train FILE --validation FILE"
    return (
        f"SOURCE: {source!r} is not among the jobs of {service.place} that this key sees, expected one of them; use a "
        f"key of the project that made it{other}"
    )


def _files(
    service: FineTuningService, job: Record, given: "set[Role]", say: Say
) -> tuple[dict[Role, bytes], list[str]]:
    """The job's own rows but for those that are given. Raises: ConfigError, without any to train on."""
    files: dict[Role, bytes] = {}
    lost, problems = list[str](), list[str]()
    for role in (role for role in FILES if role not in given):
        name, option = job.get(FILES[role]), f"--{role} FILE"
        content, why = _content(service, str(name), say) if name else (None, "")
        if content is not None:
            files[role] = content
        elif role == "train":
            problems.append(f"--train: missing, and the job's training file {name} {why}; give the rows: {option}")
        elif name:
            lost.append(f"the job's validation file {name} {why}: give it with {option}, to compare old and new")
        else:
            lost.append(f"the job had no validation file: give held-out rows with {option}, to compare old and new")
    if problems:
        raise ConfigError(*problems)
    return files, lost


def _content(service: FineTuningService, name: str, say: Say) -> tuple[bytes | None, str]:
    """The file's bytes, or why they cannot be had. Raises: BackendError, where asking again may help."""
    try:
        content = read_content(service, name, f"reading the file {name}", say)
    except BackendError as error:
        cause = error.__cause__
        failure = failure_of(cause) if isinstance(cause, Exception) else None
        if failure is None or failure.status not in REFUSED:
            raise
        return None, f"is not handed out ({failure})"
    return content, "" if content is not None else "is gone"


def _results(service: FineTuningService, job: Record, say: Say) -> tuple[bytes | None, list[str]]:
    for item in job.get("result_files") or []:
        name = str(item.get("id") if isinstance(item, dict) else item)
        content, why = _content(service, name, say)
        return content, [] if content is not None else [f"the job's metrics: the result file {name} {why}"]
    return None, [f"the job's metrics: it has no result file, being {job.get('status')}"]


def _checkpoints(service: FineTuningService, job: Record) -> Iterator[Record]:
    def page(client: "OpenAI", query: Mapping[str, Any]) -> "httpx2.Response":
        listing = client.fine_tuning.jobs.checkpoints.with_raw_response.list(str(job["id"]), extra_query=dict(query))
        return listing.http_response

    yield from service.listed(page, "reading the job's checkpoints")
