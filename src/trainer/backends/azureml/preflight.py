"""Check a run before anything is created or costs: workspace, machine, data and base, all that is wrong at once.

What could not be looked at is said as "not verified": silence means that it was looked at and is in order.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from trainer.backends.azureml.estimate import Workload, cost_of, measure
from trainer.backends.azureml.job import JobRequest
from trainer.backends.azureml.machines import GIB, price_of
from trainer.backends.azureml.submit import preview
from trainer.backends.azureml.survey import Survey, survey
from trainer.backends.azureml.workspace import Place, check_packages, connect, find_place, found
from trainer.backends.contract import Plan
from trainer.backends.http import Say
from trainer.config.schema import RunConfig
from trainer.data.read.sources import without_validation
from trainer.errors import Attempts, BackendError, ConfigError

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

BYTES_A_PARAMETER = 2  # as bases are stored on the hub
NODE_DISK_BYTES = 128 * GIB  # what users have found on nodes, whatever the machine's own disk
ROOM_BYTES = 20 * GIB  # image, packages, checkpoints beside the base


def preflight(config: RunConfig, say: Say) -> Plan[JobRequest]:
    """Raises: ConfigError, DataError, MissingDependency, BackendError."""
    check_packages()
    attempts, problems = Attempts(), _problems_of_config(config)
    place, seen = _survey(config, problems, say)
    work = attempts.make(measure, config, seen.machine)
    problems += [*(work.problems if work else ()), *seen.problems]
    if work is not None and seen.machine is not None:
        problems += _fit(config, work, seen)
    if problems:
        attempts.errors.append(ConfigError(*problems))
    attempts.end()
    assert place is not None
    assert work is not None
    price = price_of(config.azureml, seen.instance_type, seen.region)
    machines = seen.instance_type or f"node of {config.azureml.compute}"
    cost = cost_of(config, work, seen.machine, price, machines)
    request = JobRequest(place, seen.instance_type, max(1, seen.num_gpus or 0), cost.timeout_seconds)
    text, size = preview(config, request)
    return Plan(config, cost.quote, _rows(config, place, seen, work, size), request, text)


def _survey(config: RunConfig, problems: list[str], say: Say) -> tuple[Place | None, Survey]:
    """The workspace as far as it can be reached; what stands in the way is a problem of its own."""
    try:
        place = find_place(config.azureml)
        client = connect(place)
        seen = survey(config.azureml, client, place, say)
        _look_at_model(config, seen, client, say)
    except (ConfigError, BackendError) as error:
        problems += error.problems
        return None, Survey()
    return place, seen


def _problems_of_config(config: RunConfig) -> list[str]:
    """Settings that do not go together."""
    settings, problems = config.azureml, []
    if settings.key_vault is not None and settings.identity == "user":
        problems.append(
            "azureml.identity: is 'user', and a job reads the key vault as its compute only, expected 'managed' or "
            "'default' beside azureml.key_vault"
        )
    if config.tracking.report_to:
        problems.append(
            "tracking.report_to: is set, expected nothing: a job writes its metrics to the workspace's MLflow by itself"
        )
    if config.model.base.startswith("azureml:") and config.model.base.count(":") != 2:
        problems.append(f"model.base: {config.model.base!r} is not understood, expected azureml:NAME:VERSION")
    return problems


def _look_at_model(config: RunConfig, seen: Survey, client: "MLClient", say: Say) -> None:
    """A registered model that is the base; a hub model may need a token, which only the hub knows."""
    base = config.model.base
    if base.startswith("azureml:"):
        name, _, version = base.removeprefix("azureml:").partition(":")
        with seen.looking_at("base"):
            if found(lambda: client.models.get(name, version), "reading the registered model", say) is None:
                seen.problems.append(f"model.base: {base!r} was not found in the workspace; correct name or version")
    elif (
        not base.startswith("builtin:")
        and not Path(base.partition("@")[0]).exists()
        and config.azureml.key_vault is None
    ):
        seen.unverified.append("whether the node can read the base from the hub; a gated one needs azureml.key_vault")


def _fit(config: RunConfig, work: Workload, seen: Survey) -> list[str]:
    """Whether number format and base suit the machine."""
    machine, problems = seen.machine, []
    assert machine is not None
    if config.model.dtype == "bfloat16" and not machine.gpu.has_bfloat16:
        problems.append(
            f"model.dtype: is 'bfloat16', which the {machine.gpu.name} of {machine.name} has not, expected 'auto' or "
            "'float16'"
        )
    if work.num_parameters is not None:
        needed = int(work.num_parameters * BYTES_A_PARAMETER) + ROOM_BYTES
        told = f"{needed // GIB} GiB of disk for base, image and checkpoints, and {machine.name} has"
        if needed > max(machine.disk_bytes, NODE_DISK_BYTES):
            problems.append(f"model.base: needs about {told} {machine.disk_bytes // GIB}; choose a machine with more")
        elif needed > min(machine.disk_bytes, NODE_DISK_BYTES):
            seen.unverified.append(
                f"disk: about {told} between {machine.disk_bytes // GIB} and 128, by where its node keeps files"
            )
    return problems


def _rows(config: RunConfig, place: Place, seen: Survey, work: Workload, size: str) -> list[tuple[str, str]]:
    """What a person sees before a run starts, beside its cost."""
    settings, model = config.azureml, config.model
    machine = str(seen.machine or seen.instance_type or "not known")
    where = f"cluster {settings.compute}" if settings.compute else "without a cluster"
    counts = f"{work.num_rows:,} rows to train on, {work.num_held_out:,} to validate; {work.num_tokens:,} tokens"
    lines = [
        ("workspace", f"{place}, {seen.region}"),
        ("model", model.base if model.quantization == "none" else f"{model.base}, {model.quantization}"),
        ("data", f"{counts}, {work.basis}"),
        ("machine", f"{settings.instance_count} x {machine}, {settings.tier.replace('_', ' ')}, {where}"),
        ("upload", f"{size}; see them with --check"),
    ]
    if lacking := without_validation(config.data):
        lines.insert(3, ("held out", lacking))
    if work.memory is not None:
        from trainer.training.memory import gib

        memory = work.memory
        sharded = f", the base sharded over {memory.num_shards} processes" if memory.num_shards > 1 else ""
        of_gpu = f"about {gib(memory.peak_bytes)} of {gib(memory.free_bytes)} of a GPU{sharded} (estimated)"
        lines.append(("memory", of_gpu))
    if seen.instance_type is not None and not seen.num_gpus:
        lines.append(("no GPU", f"{seen.instance_type} has none: this trains on its processor"))
    return lines + [("not verified", text) for text in (*work.unverified, *seen.unverified)]
