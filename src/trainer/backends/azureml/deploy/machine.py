"""The machine of a deployment: offered for endpoints in the region, large enough, within the quota, and its price."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trainer.backends.arm import read_list
from trainer.backends.azureml.prices import Price, price_of
from trainer.backends.azureml.site import PROVIDER, VERSION, usage_of
from trainer.backends.azureml.skus import GIB, Machine, find_machine
from trainer.backends.azureml.workspace import Place, credential
from trainer.backends.http import Say
from trainer.config.deployment import DeploymentConfig
from trainer.config.schema import RunConfig
from trainer.errors import BackendError, similar
from trainer.extras import TO_LOAD_A_MODEL, lack
from trainer.runs import Run

# Of the NC machines with a GPU the documentation lists these for endpoints; the confidential one is not among them.
NOT_FOR_ENDPOINTS = ("standard_ncc40ads_h100_v5",)
SPARE = 1.2  # Azure ML wants a fifth more cores in the quota, for upgrades; not of A100 and H100 machines
WITHOUT_SPARE = ("A100", "H100 NVL")
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
QUANTIZED_BYTES = {"nf4": 0.6, "int8": 1.1}  # with the parts that stay unquantized
BEYOND_WEIGHTS = 1.15  # adapter, activations, fragments
LEAST_BEYOND = 1.5 * GIB  # CUDA itself, and a conversation's keys and values


@dataclass(frozen=True, slots=True)
class Fitting:
    """What is known of a machine. `unverified`: what could not be looked at, and why."""

    machine: Machine | None
    num_gpus: int
    price: Price
    problems: tuple[str, ...]
    unverified: tuple[str, ...]


def look_at(run: Run, settings: RunConfig, chosen: DeploymentConfig, place: Place, region: str, say: Say) -> Fitting:
    """Everything about the machine that can be known before it bills."""
    name = str(chosen.instance_type)
    machine, problems, unverified = find_machine(name), list[str](), list[str]()
    num_gpus = machine.num_gpus if machine else 0
    problems += _table_problems(name, machine)
    try:
        size = _size(place, region, name, say)
        if isinstance(size, str):
            problems.append(size)
        else:
            num_gpus = int(size.get("gpus") or 0)
            problems += _quota_problems(place, region, chosen, machine, size, unverified, say)
    except BackendError as error:
        unverified.append(f"offer and quota: {error}")
    problems += _memory_problems(run, chosen, machine, num_gpus, unverified)
    asked = settings.azureml.model_copy(update={"price_per_hour": chosen.price_per_hour, "tier": "dedicated"})
    price = price_of(asked, name, region)
    where = Price(price.per_hour, price.source.replace("azureml.price", "azureml.deployment.price"))
    return Fitting(machine, num_gpus, where, tuple(problems), tuple(unverified))


def _table_problems(name: str, machine: Machine | None) -> Iterator[str]:
    if machine is not None and machine.retired:
        yield (
            f"azureml.deployment.instance_type: {name} was retired on {machine.retired}, expected a machine that is "
            "still offered, for example Standard_NC4as_T4_v3 or Standard_NC24ads_A100_v4"
        )
    if name.lower() in NOT_FOR_ENDPOINTS:
        yield (
            f"azureml.deployment.instance_type: {name} is not offered for endpoints, expected another, "
            "for example Standard_NC40ads_H100_v5"
        )


def _size(place: Place, region: str, name: str, say: Say) -> dict[str, Any] | str:
    """The service's own description, or what is wrong."""
    sizes = read_list(_location(place, region, "vmSizes"), VERSION, "listing machine sizes", credential(), say)
    found = next((size for size in sizes if str(size.get("name")).lower() == name.lower()), None)
    known = similar(name, [str(size.get("name")) for size in sizes])
    return found or f"azureml.deployment.instance_type: {name} is not offered in {region}{known}"


def _quota_problems(
    place: Place,
    region: str,
    chosen: DeploymentConfig,
    machine: Machine | None,
    size: dict[str, Any],
    unverified: list[str],
    say: Say,
) -> Iterator[str]:
    usages = read_list(_location(place, region, "usages"), VERSION, "reading quotas", credential(), say)
    usage = usage_of(str(size.get("family")), usages)
    if usage is None:
        unverified.append(f"quota: the service lists none for {size.get('family')}")
        return
    count = chosen.instance_count
    if machine is None or machine.gpu.name not in WITHOUT_SPARE:
        count = math.ceil(SPARE * count)
    needed = count * int(size.get("vCPUs") or 0)
    free = int(usage.get("limit") or 0) - int(usage.get("currentValue") or 0)
    if needed > free:
        yield (
            f"azureml.deployment.instance_count: {chosen.instance_count} x {chosen.instance_type} need {needed} cores, "
            f"and of {size.get('family')} {max(free, 0)} of {usage.get('limit')} are free in {region}; "
            "ask for more in the studio, or take another machine"
        )


def _memory_problems(
    run: Run, chosen: DeploymentConfig, machine: Machine | None, num_gpus: int, unverified: list[str]
) -> Iterator[str]:
    """Whether the weights fit: on one GPU with the scoring script, on all of them with vLLM."""
    from trainer.inference.trained import trained_base

    if chosen.mode == "vllm" and not num_gpus:
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
            f"azureml.deployment.instance_type: the model needs about {needed / GIB:,.0f} GB, and {machine} has "
            f"{room / GIB:,.0f} GB for it; take a larger machine"
        )
    if not machine.gpu.has_bfloat16 and model.dtype == "bfloat16":
        yield (
            f"azureml.deployment.instance_type: a {machine.gpu.name} has no bfloat16, in which the run was trained, "
            "expected an A100 or H100, for example Standard_NC24ads_A100_v4"
        )


def _location(place: Place, region: str, what: str) -> str:
    return f"/subscriptions/{place.subscription}/providers/{PROVIDER}/locations/{region}/{what}"
