"""The job of a run: `azureml/job.yml` filled in. What `--check` shows is the text that is submitted."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from trainer.backends.azureml.files import own_files
from trainer.config.schema import RunConfig

if TYPE_CHECKING:
    from azure.ai.ml.entities import Job

MAX_STEM = 200  # Azure ML takes 255 characters; "-attempt" and a number follow
COMMAND = (
    "python -m trainer.backends.azureml.node --config config.yaml --data ${{inputs.data}} --output ${{outputs.run}}"
)


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What a run's job is made of beside its config."""

    stem: str  # names the job and the run's place in the datastore
    instance_type: str | None  # None where the size of a cluster is not known
    num_gpus: int  # of one machine
    timeout_seconds: int


def stem_of(name: str, salt: str) -> str:
    """A name that no other run in the workspace has. `salt`: something that this run alone has, and always has."""
    safe = "".join(char if char.isalnum() or char in "-_" else "-" for char in name)[:MAX_STEM]
    return f"{safe}-{hashlib.sha256(f'{name} {salt}'.encode()).hexdigest()[:8]}"


def job_name(stem: str, attempt: int) -> str:
    """The same for the same attempt, so that asking twice makes one job."""
    return stem if attempt == 1 else f"{stem}-{attempt}"


def output_path(config: RunConfig, stem: str) -> str:
    """Where the run lives in the datastore, whichever job writes it."""
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
    job["command"] = COMMAND + (" --base ${{inputs.base}}" if "base" in inputs else "")
    job["inputs"] = {name: _input(name, path) for name, path in inputs.items()}
    job["outputs"]["run"]["path"] = output_path(config, plan.stem)
    job["resources"] = {"instance_count": settings.instance_count, "shm_size": settings.shm_size}
    job["distribution"]["process_count_per_instance"] = plan.num_gpus
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


def load(path: Path) -> "Job":
    """The SDK's object of a job's YAML."""
    from azure.ai.ml import load_job

    return load_job(path)


def timeout_seconds(hours: float) -> int:
    """As Azure ML takes it: whole seconds, at least a minute."""
    return max(60, math.floor(hours * 3600))


def _input(name: str, path: str) -> dict[str, str]:
    """Data is read where it lies; a model is copied to the node's disk first, as reading it from a mount stalls."""
    kind = "custom_model" if path.startswith("azureml:") and name == "base" and not _is_data(path) else "uri_folder"
    return {"type": kind, "path": path, "mode": "ro_mount" if name == "data" else "download"}


def _is_data(path: str) -> bool:
    return path.startswith("azureml:trainer-")
