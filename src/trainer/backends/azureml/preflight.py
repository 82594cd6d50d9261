"""Preflight of a run before anything is created or costs: workspace, machine, data and base, all problems at once.

Every check ends as ok, as a problem, or as not looked at, with the reason.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.backends.azureml.estimate import Workload, cost_of, measure, trained_tokens
from trainer.backends.azureml.hub_base import hub_id, is_gated
from trainer.backends.azureml.job import JobRequest
from trainer.backends.azureml.machines import GIB, Machine, price_of
from trainer.backends.azureml.submit import preview
from trainer.backends.azureml.survey import Survey, survey
from trainer.backends.azureml.workspace import Place, check_packages, connect, find_place
from trainer.backends.contract import Plan, UploadFile, check_lines
from trainer.backends.http import Say, found
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
    _judge_work(config, work, seen)
    problems += seen.refusals
    if problems:
        attempts.errors.append(ConfigError(*problems))
    if attempts.errors and seen.checks:
        say("\n".join(check_lines(seen.checks)))
    attempts.end()
    assert place is not None
    assert work is not None
    price = price_of(config.azureml, seen.instance_type, seen.region)
    machines = seen.instance_type or f"node of {config.azureml.compute}"
    cost = cost_of(config, work, seen.machine, price, machines)
    limits = (seen.instance_type, seen.num_gpus, cost.timeout_seconds)
    request = JobRequest(place, *limits, cost.hourly, config.azureml.currency)
    text, files = preview(config, request)
    rows = _rows(config, place, seen, work, files)
    return Plan(
        config,
        cost.quote,
        rows,
        request,
        text,
        checks=seen.checks,
        files=files,
        trained_tokens=trained_tokens(config, work),
        ceiling=None if cost.hourly is None else cost.hourly * cost.timeout_seconds / 3600,
    )


def _survey(config: RunConfig, problems: list[str], say: Say) -> tuple[Place | None, Survey]:
    """The workspace as far as it can be reached; what stands in the way is a problem of its own."""
    try:
        place = find_place(config.azureml)
        client = connect(place)
        needs_hub = hub_id(config.model.base) is not None
        seen = survey(config.azureml, needs_hub, client, place, say)
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
    base, vault = config.model.base, config.azureml.key_vault
    if base.startswith("azureml:"):
        name, _, version = base.removeprefix("azureml:").partition(":")
        with seen.looking_at("base"):
            known = found(lambda: client.models.get(name, version), "reading the registered model", say) is not None
            problem = f"model.base: {base!r} was not found in the workspace; correct name or version"
            seen.judge("base", [] if known else [problem], f"{base} is registered")
        return
    if (model := hub_id(base)) is None:
        seen.ok("base", f"{base} is uploaded with the job, or built in")
        return
    match is_gated(model):
        case None:
            seen.unknown("base", f"whether {model} needs a token: the hub was not reached from here")
        case True if vault is None:
            seen.refuse(
                "base",
                f"model.base: {model} needs a token of the hub, and the job has none, expected azureml.key_vault with "
                "one, or a folder; set it, or download the model and give its folder",
            )
        case is_closed:
            seen.ok("base", f"{model} {'needs a token, which is in the key vault' if is_closed else 'is public'}")


def _judge_work(config: RunConfig, work: Workload | None, seen: Survey) -> None:
    """Data and base, and whether they suit the machine."""
    if work is None:
        return
    seen.ok("data", f"{work.num_rows:,} rows to train on, {work.num_held_out:,} to validate")
    for reason in work.unverified:
        seen.unknown("base and memory", reason)
    if work.problems or not work.unverified:
        seen.judge("base and memory", work.problems, work.basis)
    machine = seen.machine
    if machine is None:
        return
    if config.model.dtype == "bfloat16" and not machine.gpu.has_bfloat16:
        seen.refuse(
            "number format",
            f"model.dtype: is 'bfloat16', which the {machine.gpu.name} of {machine.name} has not, expected 'auto' or "
            "'float16'",
        )
    if work.num_parameters is not None:
        _judge_disk(work.num_parameters, machine, seen)


def _judge_disk(num_parameters: float, machine: Machine, seen: Survey) -> None:
    needed = int(num_parameters * BYTES_A_PARAMETER) + ROOM_BYTES
    sizes = f"{needed // GIB} GiB of disk for base, image and checkpoints, and {machine.name} has"
    if needed > max(machine.disk_bytes, NODE_DISK_BYTES):
        seen.refuse("disk", f"model.base: needs about {sizes} {machine.disk_bytes // GIB}; choose a machine with more")
    elif needed > min(machine.disk_bytes, NODE_DISK_BYTES):
        seen.unknown("disk", f"about {sizes} {machine.disk_bytes // GIB} to 128, by the disk that its node uses")
    else:
        seen.ok("disk", f"about {needed // GIB} GiB of {min(machine.disk_bytes, NODE_DISK_BYTES) // GIB}")


def _rows(
    config: RunConfig, place: Place, seen: Survey, work: Workload, files: Sequence[UploadFile]
) -> list[tuple[str, str]]:
    """Rows that a person sees before a run starts, beside its cost."""
    settings, model = config.azureml, config.model
    machine = str(seen.machine or seen.instance_type or "not known")
    where = f"cluster {settings.compute}" if settings.compute else "without a cluster"
    counts = f"{work.num_rows:,} rows to train on, {work.num_held_out:,} to validate; {work.num_tokens:,} tokens"
    lines = [
        ("workspace", f"{place}, {seen.region}"),
        ("model", model.base if model.quantization == "none" else f"{model.base}, {model.quantization}"),
        ("data", f"{counts}, {work.basis}"),
        ("machine", f"{settings.instance_count} x {machine}, {settings.tier.replace('_', ' ')}, {where}"),
        ("upload", f"{len(files)} files, {sum(file.bytes for file in files) / 1e6:,.1f} MB; see: --check --files"),
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
    return lines
