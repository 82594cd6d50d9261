"""The job of a run: its name, its YAML, and what the run remembers of it.

`azureml/job.yml` is filled in; what `--check` shows is the text that is submitted. `azureml.json` in the run's folder
and the ledger beside it are enough to ask again for the same job.
"""

import hashlib
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import yaml

from trainer.backends.azureml.snapshot import own_files
from trainer.backends.azureml.workspace import Place
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError
from trainer.runs import Run, files
from trainer.runs.ledger import Entry, Ledger, Thing

BACKEND = "azureml"
RECORD = "azureml.json"
MAX_STEM = 200  # Azure ML takes 255 characters; "-attempt" and a number follow
COMMAND = (
    "python -m trainer.backends.azureml.node --config config.yaml --data ${{inputs.data}} --output ${{outputs.run}}"
)


@dataclass(frozen=True, slots=True)
class JobPlan:
    """Parts of a run's job beside its config."""

    stem: str  # names the job and the run's place in the datastore
    instance_type: str | None  # None where the size of a cluster is not known
    num_processes: int  # of one machine: one for each GPU, or one
    timeout_seconds: int
    num_gpus: int | None = None  # of one machine; None where nobody says it
    hourly: float | None = None  # of all machines, as quoted; None where no price is known
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class JobRequest:
    """Target, machines and longest hours of a checked run's job; the run that names it comes later."""

    place: Place
    instance_type: str | None
    num_gpus: int | None
    timeout_seconds: int
    hourly: float | None = None  # of all machines, as quoted; None where no price is known
    currency: str = "USD"

    def plan(self, stem: str) -> JobPlan:
        """The same for a run."""
        num_processes = max(1, self.num_gpus or 0)
        limits = (self.timeout_seconds, self.num_gpus)
        return JobPlan(stem, self.instance_type, num_processes, *limits, self.hourly, self.currency)


def stem_of(name: str, salt: str) -> str:
    """A name that no other run in the workspace has. `salt`: something that this run alone has, and always has."""
    safe = "".join(char if char.isalnum() or char in "-_" else "-" for char in name)[:MAX_STEM]
    return f"{safe}-{hashlib.sha256(f'{name} {salt}'.encode()).hexdigest()[:8]}"


def job_name(stem: str, attempt: int) -> str:
    """The same for the same attempt, so that asking twice makes one job."""
    return stem if attempt == 1 else f"{stem}-{attempt}"


def output_path(config: RunConfig, stem: str) -> str:
    """Folder of the run in the datastore, the same for each of its jobs."""
    return f"azureml://datastores/{config.azureml.datastore}/paths/{prefix_of(stem)}"


def prefix_of(stem: str) -> str:
    """The same place within its container."""
    return f"trainer/{stem}/"


def job_yaml(
    config: RunConfig, plan: JobPlan, attempt: int, environment: str, code: str, inputs: dict[str, str]
) -> str:
    """The job as the YAML that `az ml job create` takes. `inputs`: what `data` and, where there is one, `base` are."""
    settings = config.azureml
    job: dict[str, Any] = yaml.safe_load((own_files() / "job.yml").read_text(encoding="utf-8"))
    job["name"], job["display_name"] = job_name(plan.stem, attempt), config.run.name
    job["experiment_name"], job["code"], job["environment"] = settings.experiment, code, environment
    base = " --base ${{inputs.base}}" if "base" in inputs else ""
    job["command"] = COMMAND + base + ("" if plan.num_gpus is None else f" --gpus {plan.num_gpus}")
    job["inputs"] = {name: _input(name, path) for name, path in inputs.items()}
    job["outputs"]["run"]["path"] = output_path(config, plan.stem)
    job["resources"] = {"instance_count": settings.instance_count, "shm_size": settings.shm_size}
    job["distribution"]["process_count_per_instance"] = plan.num_processes
    job["limits"]["timeout"] = plan.timeout_seconds
    job["tags"] = {"made_by": "azure-llm-trainer", "run": str(config.run.name), "attempt": str(attempt)}
    # The SDK adds branch, commit and address of whatever repository the command is called in, unless one is given.
    job["properties"] = {"azureml.git.dirty": "unknown"}
    if settings.compute is not None:
        job["compute"] = f"azureml:{settings.compute}"
    else:
        del job["compute"]
        job["resources"]["instance_type"] = settings.instance_type
        job["queue_settings"] = {"job_tier": "spot" if settings.tier == "low_priority" else "standard"}
    if settings.identity != "default":
        job["identity"] = {"type": {"user": "user_identity", "managed": "managed"}[settings.identity]}
    if settings.key_vault is not None:
        job["environment_variables"] |= {
            "TRAINER_KEY_VAULT": settings.key_vault.rstrip("/"),
            "TRAINER_HUB_TOKEN_SECRET": settings.hub_token_secret,
        }
    return yaml.safe_dump(job, sort_keys=False, width=120)


def remember(run: Run, place: Place, plan: JobPlan) -> None:
    """Before anything is created."""
    files.write_json(run.path / RECORD, {"place": asdict(place), "plan": asdict(plan)})


def recall(run: Run) -> tuple[Place, JobPlan] | None:
    """None for a run whose launch was interrupted before it had begun."""
    found: dict[str, Any] = files.read_record(run.path / RECORD)
    if not found:
        return None
    plan = found["plan"]
    if "num_processes" not in plan:  # a record of version 0.1.0, where num_gpus is 1 for a machine without a GPU too
        plan = plan | {"num_processes": plan["num_gpus"], "num_gpus": None}
    return Place(**found["place"]), JobPlan(**plan)


def run_stem(run: Run) -> str:
    """The run's own name at the service. The moment of its creation tells it from another run of its name."""
    return stem_of(run.name, str(run.status().get("created_at", "")))


def job_thing(run: Run, place: Place, plan: JobPlan, attempt: int, machines: str) -> Thing:
    """The job of an attempt on its machines, as the ledger knows it."""
    name = job_name(plan.stem, attempt)
    price = "" if plan.hourly is None else f"{plan.hourly:,.2f} {plan.currency} an hour for "
    bills = f"{price}{machines} until it ends"
    return Thing(BACKEND, "job", name, place.arm_id, bills, f"trainer cancel {run.path}")


def newest_job(run: Run) -> Entry | None:
    """The job of the last attempt, whether it is known to exist or not."""
    return Ledger(run.path).find("job")


def attempt_of(entry: Entry, plan: JobPlan) -> int:
    """The attempt that a job was."""
    number = entry.thing.key.removeprefix(plan.stem).removeprefix("-")
    return int(number) if number else 1


def with_remaining_time(run: Run, plan: JobPlan) -> JobPlan:
    """The plan with the time that earlier attempts have left: all together keep the cap.

    Raises: ConfigError, when nothing is left.
    """
    used = sum(_used_seconds(entry) for entry in Ledger(run.path).entries() if entry.thing.kind == "job")
    left = int(plan.timeout_seconds - used)
    if left < 60:
        raise ConfigError(
            f"run {run.name!r}: its jobs have used {used / 3600:.1f} of {plan.timeout_seconds / 3600:.1f} hours, "
            f"expected time to be left; start a new run with model.base={run.path} and a higher azureml.max_hours"
        )
    return replace(plan, timeout_seconds=left)


def _used_seconds(entry: Entry) -> float:
    """Seconds that a job ran; where the service gives none, from its creation until its end was seen, with the wait."""
    known = entry.facts.get("seconds")
    if known is not None:
        return float(known)
    begun, seen = map(datetime.fromisoformat, (entry.created_at, entry.updated_at))
    return (seen - begun).total_seconds() if "id" in entry.facts else 0.0


def _input(name: str, path: str) -> dict[str, str]:
    """Data is read where it lies; a model is copied to the node's disk first, as reading it from a mount stalls."""
    kind = (
        "custom_model"
        if path.startswith("azureml:") and name == "base" and not path.startswith("azureml:trainer-")
        else "uri_folder"
    )
    return {"type": kind, "path": path, "mode": "ro_mount" if name == "data" else "download"}
