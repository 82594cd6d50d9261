"""Everything about a deployment that can be known before anything is made: all findings at once, and the price."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.backends.azureml.deploy.environment import code_version, environment_version
from trainer.backends.azureml.deploy.machine import Fitting, look_at
from trainer.backends.azureml.deploy.names import deployment_name, endpoint_name, model_name, model_version
from trainer.backends.azureml.deploy.register import FOLDER
from trainer.backends.azureml.deploy.service import found
from trainer.backends.azureml.deploy.things import Target
from trainer.backends.azureml.states import word_of
from trainer.backends.azureml.workspace import Place, connect, find_place
from trainer.backends.http import Say, patiently
from trainer.backends.quote import Item, Quote
from trainer.backends.remote import DeploymentOptions, DeploymentPlan
from trainer.config.deployment import DeploymentConfig
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError
from trainer.inference.bundle import Bundle, write_bundle
from trainer.runs import Run

if TYPE_CHECKING:
    pass

HOURS_A_DAY = 24
MODES = ("score", "vllm")


@dataclass(frozen=True, slots=True)
class Details:
    """What `deploy` needs of a plan."""

    target: Target
    model: str  # name and version
    checkpoint: str | None
    vault: dict[str, str]  # environment variables that say where a hub token is


def plan_deployment(run: Run, settings: RunConfig, options: DeploymentOptions, say: Say) -> DeploymentPlan:
    """Raises: ConfigError, with everything that is wrong; BackendError."""
    place, chosen = find_place(settings.azureml), _chosen(settings, options)
    name = endpoint_name(run, place.arm_id, options.name)
    with tempfile.TemporaryDirectory(prefix="trainer-model-") as folder:
        say("putting the adapter together with what serving needs")
        bundle = write_bundle(run, Path(folder) / FOLDER, options.checkpoint, chosen.include_base)
    ml = connect(place)
    workspace = patiently(lambda: ml.workspaces.get(place.workspace), "reading the workspace", say)
    region = str(workspace.location).lower().replace(" ", "")
    fitting = look_at(run, settings, chosen, place, region, say)
    existing: Any = found(lambda: ml.online_endpoints.get(name), f"the endpoint {name}", say)
    problems = [*_mode_problems(run, chosen), *_auth_problems(existing, name, chosen), *fitting.problems]
    if problems:
        raise ConfigError(*problems)
    target = _target(settings, place, chosen, name, bundle, fitting)
    model = f"{model_name(run, None)}:{model_version(bundle.sha256)}"
    details = Details(target, model, options.checkpoint, _vault(settings, chosen))
    rows = [*_rows(run, target, model, region, existing), *(("not verified", what) for what in fitting.unverified)]
    return DeploymentPlan(f"{name}/{target.deployment}", _quote(target, settings.backend.spend_cap), rows, details)


def _chosen(settings: RunConfig, options: DeploymentOptions) -> DeploymentConfig:
    """The config's section with what the command was told. Raises: ConfigError."""
    problems = [
        f"--{name}: is Azure OpenAI's, expected --instance-type and --instance-count for azureml; leave it out"
        for name, value in (("sku", options.sku), ("capacity", options.capacity))
        if value is not None
    ]
    if options.mode is not None and options.mode not in MODES:
        problems.append(f"--mode: is {options.mode!r}, expected score or vllm")
    given = {
        name: value
        for name in ("mode", "instance_type", "instance_count")
        if (value := getattr(options, name)) is not None
    }
    own = settings.azureml.deployment
    machine = given.get("instance_type") or own.instance_type or settings.azureml.instance_type
    if machine is None:
        problems.append(
            "azureml.deployment.instance_type: is not given, expected a machine such as Standard_NC4as_T4_v3; "
            "set it, or give --instance-type"
        )
    if problems:
        raise ConfigError(*problems)
    return own.model_copy(update=given | {"instance_type": machine})


def _mode_problems(run: Run, chosen: DeploymentConfig) -> Iterator[str]:
    """What vLLM cannot serve, and what the scoring script ignores."""
    config = run.config()
    if chosen.mode == "score":
        if chosen.tool_parser is not None or chosen.max_length is not None:
            yield "azureml.deployment: tool_parser and max_length are vLLM's, expected them with mode vllm only"
        return
    merge = f"merge it with: trainer export {run.path} --output DIR --merge; or deploy with --mode score"
    if config.lora.use_dora:
        yield f"run {run.name!r}: has a DoRA adapter, which vLLM does not take; {merge}"
    if config.model.quantization == "int8":
        yield f"run {run.name!r}: was trained on an int8 base, which vLLM does not make; {merge}"
    if config.lora.r > 512:
        yield f"run {run.name!r}: lora.r is {config.lora.r}, expected at most 512 for vLLM; {merge}"


def _auth_problems(existing: Any, name: str, chosen: DeploymentConfig) -> Iterator[str]:
    if existing is None:
        return
    wanted, has = {"key": "key", "entra": "aad_token"}[chosen.auth], word_of(existing.auth_mode)
    if has != wanted:
        yield (
            f"azureml.deployment.auth: is {chosen.auth!r}, but the endpoint {name!r} has {has!r}; "
            "change it, or choose another endpoint with --name"
        )


def _target(
    settings: RunConfig, place: Place, chosen: DeploymentConfig, endpoint: str, bundle: Bundle, fitting: Fitting
) -> Target:
    code = code_version() if chosen.mode == "score" else ""
    parts = (bundle.sha256, environment_version(chosen.mode), code, sorted(chosen.model_dump().items()))
    return Target(
        place,
        endpoint,
        deployment_name(chosen.mode, *parts),
        chosen,
        num_gpus=max(fitting.num_gpus, 1),
        price=fitting.price.per_hour,
        currency=settings.azureml.currency,
        price_source=fitting.price.source,
    )


def _vault(settings: RunConfig, chosen: DeploymentConfig) -> dict[str, str]:
    """Where the container finds a hub token; the token itself is in no resource."""
    if settings.azureml.key_vault is None or chosen.include_base or chosen.mode != "score":
        return {}
    return {
        "TRAINER_KEY_VAULT": settings.azureml.key_vault.rstrip("/"),
        "TRAINER_HUB_TOKEN_SECRET": settings.azureml.hub_token_secret,
    }


def _rows(run: Run, target: Target, model: str, region: str, existing: Any) -> Iterator[tuple[str, str]]:
    settings = target.settings
    yield "workspace", f"{target.place}, {region}"
    yield "model", f"{model}, base {run.manifest().base.name}" + (" included" if settings.include_base else "")
    serving = {
        "score": "the scoring script: one request at a time on a machine, whole answers",
        "vllm": f"vLLM: {settings.max_requests} requests at a time on a machine, streaming",
    }
    yield "serving", serving[settings.mode]
    yield "machines", target.machines
    auth = {"key": "with the endpoint's key", "entra": "with a token of Microsoft Entra"}[settings.auth]
    new = "new" if existing is None else "exists, keeps its deployments"
    yield "endpoint", f"{target.endpoint} ({new}), {auth}"
    yield "deployment", f"{target.deployment}, gets the traffic after it has answered as the run's model does"
    if existing is not None:
        old = [f"{name} ({share} %)" for name, share in existing.traffic.items() if name != target.deployment]
        if old:
            yield "stay", f"{', '.join(old)}: without traffic, for going back, and billing until deleted"


def _quote(target: Target, cap: float | None) -> Quote:
    hourly = target.hourly
    running = [f"bills around the clock until it is deleted{_a_day(target)}: trainer teardown RUN"]
    notes = ["a deployment that fails is deleted, as it bills too; storage and the image cost a little on their own"]
    if cap is not None and hourly:
        hours = cap / hourly
        notes.append(f"backend.spend_cap of {cap:,.2f} is reached after {hours:,.1f} hours; nothing stops it then")
    return Quote(
        [Item(f"each hour of {target.machines}", hourly)], target.price_source, target.currency, running, notes
    )


def _a_day(target: Target) -> str:
    return "" if target.hourly is None else f", {HOURS_A_DAY * target.hourly:,.2f} {target.currency} a day"
