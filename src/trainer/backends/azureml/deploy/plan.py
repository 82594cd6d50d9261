"""Check a deployment before anything is made: all findings at once, the machine, and the price."""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.backends.arm import allows, read_permissions, region_name
from trainer.backends.azureml.deploy.base import BaseFacts, check_base, facts_of, takes_base, with_endpoint
from trainer.backends.azureml.deploy.deployment import DeploymentTarget, deployment_name, endpoint_name
from trainer.backends.azureml.deploy.register import (
    FOLDER,
    code_version,
    environment_version,
    model_name,
    model_version,
)
from trainer.backends.azureml.image import lacking_kernels
from trainer.backends.azureml.machines import GIB, Machine, Price, price_of
from trainer.backends.azureml.sizes import find_machine
from trainer.backends.azureml.survey import LATER_RIGHTS, Region, lacking_cores, retirement
from trainer.backends.azureml.workspace import Place, connect, credential, find_place, word_of
from trainer.backends.contract import Check, DeploymentOptions, DeploymentPlan
from trainer.backends.http import Say, found, patiently
from trainer.backends.quote import Item, Quote
from trainer.config.azureml import DeploymentConfig
from trainer.config.schema import RunConfig
from trainer.errors import Attempts, BackendError, ConfigError
from trainer.extras import TO_LOAD_A_MODEL, lack
from trainer.inference.bundle import Bundle, write_bundle
from trainer.runs import Run
from trainer.runs.lifecycle import refuse_failed_gate

HOURS_A_DAY = 24
MODES = ("score", "vllm")
MACHINE_SETTING = "azureml.deployment.instance_type"
# Of the NC machines with a GPU the documentation lists these for endpoints; the confidential one is not among them.
NOT_FOR_ENDPOINTS = ("standard_ncc40ads_h100_v5",)
SPARE = 1.2  # Azure ML wants a fifth more cores in the quota, for upgrades; not of A100 and H100 machines
WITHOUT_SPARE = ("A100", "H100 NVL")
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
QUANTIZED_BYTES = {"nf4": 0.6, "int8": 1.1}  # with the parts that stay unquantized
BEYOND_WEIGHTS = 1.15  # adapter, activations, fragments
LEAST_BEYOND = 1.5 * GIB  # CUDA itself, and a conversation's keys and values


@dataclass(frozen=True, slots=True)
class DeploymentRequest:
    """Request that `deploy` executes as planned."""

    target: DeploymentTarget
    model: str  # name and version
    checkpoint: str | None
    vault: dict[str, str]  # environment variables that say where a hub token is
    with_base: bool  # the base is uploaded with the adapter


@dataclass(frozen=True, slots=True)
class MachineFit:
    """Capacity, price and problems of a machine. `unverified` lists the checks that could not run, and why."""

    num_gpus: int | None
    price: Price
    problems: tuple[str, ...]
    unverified: tuple[str, ...]


def plan_deployment(
    run: Run, settings: RunConfig, options: DeploymentOptions, say: Say
) -> DeploymentPlan[DeploymentRequest]:
    """Raises: ConfigError, with everything that is wrong; BackendError."""
    refuse_failed_gate(run, options.ignore_gate)
    place, chosen = find_place(settings.azureml), _chosen(settings, options)
    name = endpoint_name(run, place.arm_id, options.name)
    facts = facts_of(run, settings, chosen)
    chosen = chosen.model_copy(update={"include_base": takes_base(facts, chosen.include_base)})
    with tempfile.TemporaryDirectory(prefix="trainer-model-") as folder:
        say("putting the adapter together with what serving needs")
        bundle = write_bundle(run, Path(folder) / FOLDER, options.checkpoint, chosen.include_base is True)
    ml = connect(place)
    workspace = patiently(lambda: ml.workspaces.get(place.workspace), "reading the workspace", say)
    region = Region(place, region_name(workspace.location), say)
    fitting = _fit(run, settings, chosen, region)
    existing: Any = found(lambda: ml.online_endpoints.get(name), f"looking for the endpoint {name}", say)
    facts = with_endpoint(facts, existing, place, say)
    attempts, checks = Attempts(), [Check("machine", "not looked at", why) for why in fitting.unverified]
    problems = [*_mode_problems(run, chosen), *_auth_problems(existing, name, chosen), *fitting.problems]
    for step in (
        lambda: check_base(facts, chosen.include_base is True),
        lambda: _check_rights(place, say),
    ):
        if (check := attempts.make(step)) is not None:
            checks.append(check)
    if problems:
        attempts.errors.append(ConfigError(*problems))
    attempts.end()
    target = _target(settings, place, chosen, name, bundle, fitting)
    model = f"{model_name(run, None)}:{model_version(bundle.sha256)}"
    with_base = chosen.include_base is True
    request = DeploymentRequest(target, model, options.checkpoint, _vault(settings, chosen, facts), with_base)
    rows = list(_rows(run, target, model, region.name, existing))
    quote = _quote(target, settings.backend.spend_cap)
    return DeploymentPlan(f"{name}/{target.deployment}", quote, rows, request, checks=checks)


def _check_rights(place: Place, say: Say) -> Check:
    """Check the caller's rights to register and deploy. Raises: ConfigError, where one is lacking."""
    try:
        granted = read_permissions(place.arm_id, "reading your rights in the workspace", credential(), say)
    except BackendError as error:
        return Check("rights", "not looked at", str(error))
    lacking = [right for rights in LATER_RIGHTS.values() for right in rights if not allows(granted, right)]
    if lacking:
        raise ConfigError(
            f"azureml.workspace: you may not {', '.join(lacking)}, expected the role AzureML Data Scientist; "
            "ask the workspace's owner"
        )
    return Check("rights", "ok", "to register, deploy and delete")


def _chosen(settings: RunConfig, options: DeploymentOptions) -> DeploymentConfig:
    """The config's section with the command's options. Raises: ConfigError."""
    problems = [
        f"--{name}: is Azure OpenAI's, expected --instance-type and --instance-count for azureml; leave it out"
        for name, value in (
            ("sku", options.sku),
            ("capacity", options.capacity),
            ("resource", options.resource),
            ("copy", options.copies or None),
        )
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
    """Settings that vLLM cannot serve, or the scoring script ignores."""
    config = run.config()
    if chosen.mode == "score":
        if any(own is not None for own in (chosen.tool_parser, chosen.max_length, chosen.vllm_image)):
            yield "azureml.deployment: tool_parser, max_length and vllm_image are vLLM's, expected only with mode vllm"
        return
    merge = f"merge it with: trainer export {run.path} --output DIR --merge; or deploy with --mode score"
    if config.lora.use_dora:
        yield f"run {run.name!r}: has a DoRA adapter, which vLLM does not take; {merge}"
    if config.model.quantization == "int8":
        yield f"run {run.name!r}: was trained on an int8 base, which vLLM does not make; {merge}"
    if run.manifest().has_quantized_experts:
        yield f"run {run.name!r}: was trained on experts in NF4, which vLLM does not make; {merge}"
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
    settings: RunConfig, place: Place, chosen: DeploymentConfig, endpoint: str, bundle: Bundle, fitting: MachineFit
) -> DeploymentTarget:
    code = code_version() if chosen.mode == "score" else ""
    parts = (bundle.sha256, environment_version(chosen), code, sorted(chosen.model_dump().items()))
    return DeploymentTarget(
        place,
        endpoint,
        deployment_name(chosen.mode, *parts),
        chosen,
        num_gpus=fitting.num_gpus,
        price=fitting.price.per_hour,
        currency=settings.azureml.currency,
        price_source=fitting.price.source,
    )


def _fit(run: Run, settings: RunConfig, chosen: DeploymentConfig, region: Region) -> MachineFit:
    """Everything about the machine that can be known before it bills."""
    name = str(chosen.instance_type)
    machine, unverified = find_machine(name), list[str]()
    num_gpus = machine.num_gpus if machine else None
    problems = [*retirement(MACHINE_SETTING, name, machine), *_exclusion(name)]
    if machine is not None and chosen.mode == "score":
        problems += lacking_kernels(MACHINE_SETTING, machine, "deploy with --mode vllm")
    try:
        size = region.size(name, MACHINE_SETTING)
        if isinstance(size, str):
            problems.append(size)
        else:
            num_gpus = int(size.get("gpus") or 0)
            problems += _quota_problems(chosen, machine, size, region, unverified)
    except BackendError as error:
        unverified.append(f"offer and quota: {error}")
    problems += _memory_problems(run, chosen, machine, num_gpus, unverified)
    asked = settings.azureml.model_copy(update={"price_per_hour": chosen.price_per_hour, "tier": "dedicated"})
    price = price_of(asked, name, region.name)
    where = Price(price.per_hour, price.source.replace("azureml.price", "azureml.deployment.price"))
    return MachineFit(num_gpus, where, tuple(problems), tuple(unverified))


def _exclusion(name: str) -> Iterator[str]:
    if name.lower() in NOT_FOR_ENDPOINTS:
        yield (
            f"{MACHINE_SETTING}: {name} is not offered for endpoints, expected another, "
            "for example Standard_NC40ads_H100_v5"
        )


def _quota_problems(
    chosen: DeploymentConfig, machine: Machine | None, size: dict[str, Any], region: Region, unverified: list[str]
) -> Iterator[str]:
    family = str(size.get("family"))
    quota = region.quota(family)
    if quota is None:
        unverified.append(f"quota: the service lists none for {family}")
        return
    count = chosen.instance_count
    if machine is None or machine.gpu.name not in WITHOUT_SPARE:
        count = math.ceil(SPARE * count)
    needed = count * int(size.get("vCPUs") or 0)
    if free := lacking_cores(quota, needed):
        yield (
            f"azureml.deployment.instance_count: {chosen.instance_count} x {chosen.instance_type} need {needed} cores, "
            f"and of {family} {free} in {region.name}; ask for more in the studio, or take another machine"
        )


def _memory_problems(
    run: Run, chosen: DeploymentConfig, machine: Machine | None, num_gpus: int | None, unverified: list[str]
) -> Iterator[str]:
    """Check that the weights fit: on one GPU with the scoring script, on all of them with vLLM."""
    from trainer.inference.trained import trained_base

    if chosen.mode == "vllm" and num_gpus == 0:
        yield f"azureml.deployment.mode: vllm needs a GPU, and {chosen.instance_type} has none; take another machine"
        return
    if machine is None:
        unverified.append(f"{chosen.instance_type} is not in the table of GPU machines: its memory is unknown")
        return
    if missing := lack(TO_LOAD_A_MODEL):
        unverified.append(f"whether the model fits its memory: {missing}")
        return
    model = run.config().model
    parameters = sum(parameter.numel() for parameter in trained_base(run).skeleton.parameters())
    a_weight = QUANTIZED_BYTES.get(model.quantization) or BYTES.get(model.dtype, 4.0)
    needed = parameters * a_weight * BEYOND_WEIGHTS + LEAST_BEYOND
    room = machine.gpu.memory_bytes * (machine.num_gpus if chosen.mode == "vllm" else 1)
    if needed > room:
        yield (
            f"{MACHINE_SETTING}: the model needs about {needed / GIB:,.0f} GB, and {machine} has "
            f"{room / GIB:,.0f} GB for it; take a larger machine"
        )
    if not machine.gpu.has_bfloat16 and model.dtype == "bfloat16":
        yield (
            f"{MACHINE_SETTING}: a {machine.gpu.name} has no bfloat16, in which the run was trained, "
            "expected an A100 or H100, for example Standard_NC24ads_A100_v4"
        )


def _vault(settings: RunConfig, chosen: DeploymentConfig, facts: BaseFacts | None) -> dict[str, str]:
    """Address of the key vault with the container's hub token; the token itself is in no resource."""
    if settings.azureml.key_vault is None or chosen.include_base is True or chosen.mode != "score":
        return {}
    return {
        "TRAINER_KEY_VAULT": settings.azureml.key_vault.rstrip("/"),
        "TRAINER_HUB_TOKEN_SECRET": settings.azureml.hub_token_secret,
    } | ({"AZURE_CLIENT_ID": facts.client_id} if facts is not None and facts.client_id else {})


def _rows(run: Run, target: DeploymentTarget, model: str, region: str, existing: Any) -> Iterator[tuple[str, str]]:
    settings = target.settings
    yield "workspace", f"{target.place}, {region}"
    yield "model", f"{model}, base {run.manifest().base.name}" + (" included" if settings.include_base is True else "")
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


def _quote(target: DeploymentTarget, cap: float | None) -> Quote:
    hourly = target.hourly
    running = [f"bills around the clock until it is deleted{_a_day(target)}: trainer teardown RUN"]
    notes = ["a deployment that fails is deleted, as it bills too; storage and the image cost a little on their own"]
    if cap is not None and hourly:
        hours = cap / hourly
        notes.append(f"backend.spend_cap of {cap:,.2f} is reached after {hours:,.1f} hours; nothing stops it then")
    return Quote(
        [Item(f"each hour of {target.machines}", hourly)], target.price_source, target.currency, running, notes
    )


def _a_day(target: DeploymentTarget) -> str:
    return "" if target.hourly is None else f", {HOURS_A_DAY * target.hourly:,.2f} {target.currency} a day"
