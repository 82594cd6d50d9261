"""What a person sees of a plan: the job as it will be submitted, the files that go with it, and the facts."""

import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.backends.azureml.files import own_files
from trainer.backends.azureml.job import JobPlan, job_yaml, stem_of
from trainer.backends.azureml.reading import Amounts
from trainer.backends.azureml.site import Site
from trainer.backends.azureml.snapshot import content_hash, list_files, stage
from trainer.backends.azureml.submit import ENVIRONMENT, HASH_LENGTH
from trainer.backends.azureml.workspace import Place
from trainer.config.schema import RunConfig
from trainer.data.read.sources import without_validation

if TYPE_CHECKING:
    from trainer.backends.azureml.preflight import Details


def job_text(config: RunConfig, details: "Details") -> tuple[str, str]:
    """The job as it would be submitted now, with the files that would be uploaded; and their number and size."""
    name = config.run.name or f"{datetime.now():%Y%m%d-%H%M%S}-NAME"  # noqa: DTZ005  # the user's own clock
    named = config.model_copy(update={"run": config.run.model_copy(update={"name": name})})
    plan = JobPlan(stem_of(name, ""), details.instance_type, details.num_gpus, details.timeout_seconds)
    with tempfile.TemporaryDirectory(prefix="azure-llm-trainer-") as folder:
        snapshot = stage(named, Path(folder))
        inputs = {"data": f"azureml:trainer-data-{content_hash(snapshot.data)[:HASH_LENGTH]}:1"}
        if snapshot.base is not None:
            inputs["base"] = f"azureml:trainer-base-{content_hash(snapshot.base)[:HASH_LENGTH]}:1"
        elif config.model.base.startswith("azureml:"):
            inputs["base"] = config.model.base
        version = content_hash(own_files() / "environment")[:HASH_LENGTH]
        environment = config.azureml.environment or f"azureml:{ENVIRONMENT}:{version}"
        files = list_files(Path(folder))
        listing = "\n".join(f"{size:>14,}  {name}" for name, size in files)
        size = f"{len(files)} files, {sum(size for _, size in files) / 1e6:,.1f} MB"
        return f"{job_yaml(named, plan, 1, environment, 'code', inputs)}\n# uploaded: {size}\n{listing}", size


def rows(config: RunConfig, place: Place, site: Site, amounts: Amounts, size: str) -> list[tuple[str, str]]:
    """What a person sees before a run starts, beside its cost."""
    settings, model = config.azureml, config.model
    machine = str(site.machine or site.instance_type or "not known")
    where = f"cluster {settings.compute}" if settings.compute else "without a cluster"
    counts = (
        f"{amounts.num_rows:,} rows to train on, {amounts.num_held_out:,} to validate; {amounts.num_tokens:,} tokens"
    )
    found = [
        ("workspace", f"{place}, {site.region}"),
        ("model", model.base if model.quantization == "none" else f"{model.base}, {model.quantization}"),
        ("data", f"{counts}, {amounts.basis}"),
        ("machine", f"{settings.instance_count} x {machine}, {settings.tier.replace('_', ' ')}, {where}"),
        ("upload", f"{size}; see them with --check"),
    ]
    if lacking := without_validation(config.data):
        found.insert(3, ("held out", lacking))
    if amounts.memory is not None:
        from trainer.training.memory import gib

        memory = amounts.memory
        parts = f", the base in {memory.num_parts} parts" if memory.num_parts > 1 else ""
        of_gpu = f"about {gib(memory.peak_bytes)} of {gib(memory.free_bytes)} of a GPU{parts} (estimated)"
        found.append(("memory", of_gpu))
    if site.instance_type is not None and not site.num_gpus:
        found.append(("no GPU", f"{site.instance_type} has none: this trains on its processor"))
    return found + [("not verified", text) for text in (*amounts.unverified, *site.unverified)]
