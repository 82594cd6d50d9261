"""Submit a job: uploads named by their content, and a job named by the run, so that asking twice makes one.

`preview` shows the same job without creating anything.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from trainer.backends.azureml.job import BACKEND, JobPlan, JobRequest, job_thing, job_yaml, stem_of
from trainer.backends.azureml.snapshot import StagedJob, content_hash, list_files, own_files, stage
from trainer.backends.azureml.workspace import Place, quietly
from trainer.backends.contract import UploadFile
from trainer.backends.http import Say, found_or_none
from trainer.backends.idempotent import create_once
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError
from trainer.runs import Run, files
from trainer.runs.ledger import Ledger, Thing

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

T = TypeVar("T")

ENVIRONMENT = "azure-llm-trainer"
HASH_LENGTH = 16


def submit(run: Run, client: "MLClient", place: Place, plan: JobPlan, attempt: int, say: Say) -> None:
    """Upload what the job needs and create it. Raises: BackendError, ConfigError."""
    config, ledger = _named(run.config(), run.name), Ledger(run.path)
    with tempfile.TemporaryDirectory(prefix="azure-llm-trainer-") as folder:
        staged = stage(config, Path(folder))
        environment = config.azureml.environment or _environment(client, place, ledger, say)
        assets = _assets(staged)
        for role, asset in assets.items():
            if role == "base":
                say("uploading the base; the same files are uploaded once only")
            _upload(client, place, ledger, asset, say)
        path = Path(folder) / "job.yml"
        path.write_text(job_yaml(config, plan, attempt, environment, "code", _inputs(config, assets)), encoding="utf-8")
        files.write_whole(run.path / "job.yml", path.read_bytes())
        _create_job(run, client, place, plan, attempt, path, staged, say)


def preview(config: RunConfig, request: JobRequest) -> tuple[str, list[UploadFile]]:
    """The job as it would be submitted now, with the files that would be uploaded; and their number and size."""
    name = config.run.name or f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-NAME"
    plan = request.plan(stem_of(name, ""))
    with tempfile.TemporaryDirectory(prefix="azure-llm-trainer-") as folder:
        named = _named(config, name)
        staged = stage(named, Path(folder))
        environment = config.azureml.environment or f"azureml:{ENVIRONMENT}:{_environment_version()}"
        listed = list_files(Path(folder))
        text = job_yaml(named, plan, 1, environment, "code", _inputs(config, _assets(staged)))
        return text, [UploadFile(name, size) for name, size in listed]


def _named(config: RunConfig, name: str) -> RunConfig:
    """The config with the name that its run's folder has, where it has none of its own."""
    return config.model_copy(update={"run": config.run.model_copy(update={"name": name})})


@dataclass(frozen=True, slots=True)
class _DataAsset:
    """A staged folder under the name that its content gives it."""

    name: str
    folder: Path


def _assets(staged: StagedJob) -> dict[str, _DataAsset]:
    """Uploads beside the code, by the job's names for them."""
    folders = {"data": staged.data} | ({"base": staged.base} if staged.base is not None else {})
    return {
        role: _DataAsset(f"trainer-{role}-{content_hash(folder)[:HASH_LENGTH]}", folder)
        for role, folder in folders.items()
    }


def _inputs(config: RunConfig, assets: dict[str, _DataAsset]) -> dict[str, str]:
    """The job's inputs: what is uploaded, and a base that is a model of the workspace."""
    inputs = {role: f"azureml:{asset.name}:1" for role, asset in assets.items()}
    if config.model.base.startswith("azureml:"):
        inputs["base"] = config.model.base
    return inputs


def _environment_version() -> str:
    return content_hash(own_files() / "environment")[:HASH_LENGTH]


def _create_job(
    run: Run, client: "MLClient", place: Place, plan: JobPlan, attempt: int, path: Path, staged: StagedJob, say: Say
) -> None:
    from azure.ai.ml import load_job

    config, ledger = run.config(), Ledger(run.path)
    code = Thing(BACKEND, "code", content_hash(staged.code)[:HASH_LENGTH], place.arm_id)
    if (known := ledger.find(code.kind, code.key)) is None or not known.is_open:
        ledger.write(code, "intended")
    machine = plan.instance_type or config.azureml.compute
    thing = job_thing(run, place, plan, attempt, f"{config.azureml.instance_count} x {machine}")
    job = _made(
        ledger,
        thing,
        get=lambda: client.jobs.get(thing.key),
        create=lambda: client.jobs.create_or_update(load_job(path)),
        facts=lambda made: {"id": made.id, "attempt": attempt, "studio": made.studio_url or "", "code": made.code},
        say=say,
        known={"hourly": plan.hourly, "currency": plan.currency, "started_at": None},  # while it waits nothing bills
    )
    ledger.write(code, "exists", id=str(job.code))
    run.set_status("queued", backend=BACKEND, job=thing.key, attempt=attempt, studio=job.studio_url, error=None)
    run.event(f"job {thing.key} is submitted", kind="job", job=thing.key, attempt=attempt)
    say(f"job {thing.key}" + (f"  {job.studio_url}" if job.studio_url else ""))


def _environment(client: "MLClient", place: Place, ledger: Ledger, say: Say) -> str:
    """The environment of `azureml/environment`, registered under the hash of its files; built by Azure ML once."""
    from azure.ai.ml.entities import BuildContext, Environment

    folder = own_files() / "environment"
    version = _environment_version()
    remove = f"az ml environment archive -n {ENVIRONMENT} -v {version} {place.options}"
    environment = Environment(name=ENVIRONMENT, version=version, build=BuildContext(path=str(folder)))
    _made(
        ledger,
        Thing(BACKEND, "environment", f"{ENVIRONMENT}:{version}", place.arm_id, "", remove),
        get=lambda: client.environments.get(ENVIRONMENT, version),
        create=lambda: client.environments.create_or_update(environment),
        facts=lambda made: {"id": made.id},
        say=say,
    )
    return f"azureml:{ENVIRONMENT}:{version}"


def _upload(client: "MLClient", place: Place, ledger: Ledger, asset: _DataAsset, say: Say) -> None:
    """A folder as a data asset that its content names."""
    from azure.ai.ml.entities import Data

    name, folder = asset.name, asset.folder
    _made(
        ledger,
        Thing(BACKEND, "data", f"{name}:1", place.arm_id, "", f"az ml data archive -n {name} -v 1 {place.options}"),
        get=lambda: client.data.get(name, "1"),
        create=lambda: client.data.create_or_update(Data(name=name, version="1", type="uri_folder", path=str(folder))),
        facts=lambda made: {"id": made.id, "path": made.path},
        say=say,
    )


def _made(
    ledger: Ledger,
    thing: Thing,
    get: Callable[[], T],
    create: Callable[[], T],
    facts: Callable[[T], dict[str, Any]],
    say: Say,
    known: Mapping[str, Any] = MappingProxyType({}),
) -> T:
    """The thing, made once. Raises: BackendError; ConfigError, after which there is no such thing."""
    what = f"the {thing.kind} {thing.key!r}"
    try:
        look_up, make = lambda: found_or_none(get), lambda: _checked(create, what)
        return create_once(ledger, thing, look_up, make, facts, say, known=known)
    except ConfigError as error:
        ledger.write(thing, "refused", reason=str(error))
        raise


def _checked(create: Callable[[], T], what: str) -> T:
    """The SDK's own refusals, before anything is sent, are mistakes of a setting."""
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import AzureError

    try:
        with quietly():
            return create()
    except MlException as error:
        if isinstance(error.__cause__ or error.__context__, AzureError):  # the service's answer in other words
            raise
        problem = f"{what}: is not accepted by azure-ai-ml: {' '.join(str(error).split())[:400]}; correct the setting"
        raise ConfigError(problem) from error
