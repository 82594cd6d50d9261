"""Creating a job: uploads named by their content, and a job named by the run, so that asking twice makes one."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trainer.backends.azureml.files import own_files
from trainer.backends.azureml.job import JobPlan, job_yaml, load
from trainer.backends.azureml.record import BACKEND, job_thing
from trainer.backends.azureml.snapshot import Snapshot, content_hash, stage
from trainer.backends.azureml.workspace import Place, quietly
from trainer.backends.http import Say, failure_of, is_failure
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
    config, ledger = _named(run), Ledger(run.path)
    with tempfile.TemporaryDirectory(prefix="azure-llm-trainer-") as folder:
        snapshot = stage(config, Path(folder))
        environment = config.azureml.environment or _environment(client, place, ledger, say)
        inputs = _inputs(config, snapshot, client, place, ledger, say)
        path = Path(folder) / "job.yml"
        path.write_text(job_yaml(config, plan, attempt, environment, "code", inputs), encoding="utf-8")
        files.write_whole(run.path / "job.yml", path.read_bytes())
        _create_job(run, client, place, plan, attempt, path, snapshot, say)


def _named(run: Run) -> RunConfig:
    """The run's config, with the name that its folder was given where it has none of its own."""
    config = run.config()
    return config.model_copy(update={"run": config.run.model_copy(update={"name": run.name})})


def _create_job(
    run: Run, client: "MLClient", place: Place, plan: JobPlan, attempt: int, path: Path, snapshot: Snapshot, say: Say
) -> None:
    config, ledger = run.config(), Ledger(run.path)
    code = Thing(BACKEND, "code", content_hash(snapshot.code)[:HASH_LENGTH], place.arm_id)
    if (known := ledger.find(code.kind, code.key)) is None or not known.is_open:
        ledger.write(code, "intended")
    machine = plan.instance_type or config.azureml.compute
    thing = job_thing(run, place, plan, attempt, f"{config.azureml.instance_count} x {machine} until it ends")
    job = _made(
        ledger,
        thing,
        get=lambda: client.jobs.get(thing.key),
        create=lambda: client.jobs.create_or_update(load(path)),
        facts=lambda made: {"id": made.id, "attempt": attempt, "studio": made.studio_url or "", "code": made.code},
        say=say,
    )
    ledger.write(code, "exists", id=str(job.code))
    run.set_status("queued", backend=BACKEND, job=thing.key, attempt=attempt, studio=job.studio_url, error=None)
    run.event(f"job {thing.key} is submitted", kind="job", job=thing.key, attempt=attempt)
    say(f"job {thing.key}" + (f"  {job.studio_url}" if job.studio_url else ""))


def _environment(client: "MLClient", place: Place, ledger: Ledger, say: Say) -> str:
    """The environment of `azureml/environment`, registered under the hash of its files; built by Azure ML once."""
    from azure.ai.ml.entities import BuildContext, Environment

    folder = own_files() / "environment"
    version = content_hash(folder)[:HASH_LENGTH]
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


def _inputs(
    config: RunConfig, snapshot: Snapshot, client: "MLClient", place: Place, ledger: Ledger, say: Say
) -> dict[str, str]:
    inputs = {"data": _upload(client, place, ledger, snapshot.data, "data", say)}
    if snapshot.base is not None:
        say("uploading the base; the same files are uploaded once only")
        inputs["base"] = _upload(client, place, ledger, snapshot.base, "base", say)
    elif config.model.base.startswith("azureml:"):
        inputs["base"] = config.model.base
    return inputs


def _upload(client: "MLClient", place: Place, ledger: Ledger, folder: Path, role: str, say: Say) -> str:
    """A folder as a data asset that its content names."""
    from azure.ai.ml.entities import Data

    name = f"trainer-{role}-{content_hash(folder)[:HASH_LENGTH]}"
    _made(
        ledger,
        Thing(BACKEND, "data", f"{name}:1", place.arm_id, "", f"az ml data archive -n {name} -v 1 {place.options}"),
        get=lambda: client.data.get(name, "1"),
        create=lambda: client.data.create_or_update(Data(name=name, version="1", type="uri_folder", path=str(folder))),
        facts=lambda made: {"id": made.id, "path": made.path},
        say=say,
    )
    return f"azureml:{name}:1"


def _made(
    ledger: Ledger,
    thing: Thing,
    get: Callable[[], T],
    create: Callable[[], T],
    facts: Callable[[T], dict[str, Any]],
    say: Say,
) -> T:
    """The thing, made once. Raises: BackendError; ConfigError, after which there is no such thing."""
    what = f"the {thing.kind} {thing.key!r}"
    try:
        return create_once(ledger, thing, lambda: found_or_none(get), lambda: _checked(create, what), facts, say)
    except ConfigError as error:
        ledger.write(thing, "refused", reason=str(error))
        raise


def found_or_none(get: Callable[[], T]) -> T | None:
    """What the service has, None where it answers that it has none."""
    try:
        return get()
    except Exception as error:
        if is_failure(error) and failure_of(error).status == 404:
            return None
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
        problem = f"{what}: is not accepted by azure-ai-ml: {_first_line(error)}; correct the setting"
        raise ConfigError(problem) from error


def _first_line(error: Any) -> str:
    return " ".join(str(error).split())[:400]
