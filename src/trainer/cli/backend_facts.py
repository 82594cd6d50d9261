"""What matters first of a run on the backend where it executes: where it is, what it made, what it costs."""

from typing import Any

from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.damage import readable_manifest
from trainer.runs.ledger import Ledger
from trainer.runs.lifecycle import further

TITLES = {
    "local": "on this machine",
    "azureml": "on Azure Machine Learning",
    "openai": "at the fine-tuning service",
}


def first_facts(run: Run) -> dict[str, str]:
    """In the order in which they are shown; what is not known, or damaged, is left out."""
    status, manifest = run.status(), readable_manifest(run)
    device = None if manifest is None else manifest.device
    match run.backend:
        case "azureml":
            facts = _of_the_job(status) | _of_the_workspace(run) | _adapter(run)
        case "openai":
            facts = {"service": device} | _of_the_job(status) | _of_the_model(status)
        case _:
            facts = {"device": device} | _adapter(run)
    return {name: str(value) for name, value in (facts | _bills(run)).items() if value}


def _of_the_job(status: dict[str, Any]) -> dict[str, Any]:
    job, word = status.get("job"), status.get("job_status") or status.get("service_status")
    return {"job": f"{job}, {word}" if job and word else job, "studio": status.get("studio")}


def _of_the_workspace(run: Run) -> dict[str, Any]:
    from trainer.backends.azureml.job import recall

    try:
        found = recall(run)
    except (LookupError, TypeError):
        return {}
    if found is None:
        return {}
    place, plan = found
    return {"workspace": f"{place.workspace} in {place.resource_group}", "machine": plan.instance_type}


def _of_the_model(status: dict[str, Any]) -> dict[str, Any]:
    tokens = status.get("trained_tokens")
    return {
        "model": status.get("fine_tuned_model"),
        "answers until": status.get("model_until"),
        "billed": f"{tokens:,} tokens trained" if isinstance(tokens, int) else None,
    }


def _adapter(run: Run) -> dict[str, str]:
    if (run.adapter / "adapter_model.safetensors").is_file():
        return {"adapter": str(run.adapter)}
    return {"adapter": f"none so far; {further(run)}"}


def _bills(run: Run) -> dict[str, str]:
    try:
        billing = Ledger(run.path).billing()
    except ConfigError:
        return {}
    told = [
        f"{entry.thing.kind} {entry.thing.key} ({entry.thing.bills or entry.thing.delete_with})" for entry in billing
    ]
    return {"still bills": "; ".join(told)}
