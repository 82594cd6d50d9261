"""Everything that can be known about a run before anything is created or costs; all that is wrong at once.

What cannot be looked at is said as "not verified": silence means that it was looked at and is in order.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.backends.azureml.cost import cost_of
from trainer.backends.azureml.prices import price_of
from trainer.backends.azureml.reading import Amounts, measure
from trainer.backends.azureml.shown import job_text, rows
from trainer.backends.azureml.site import Site, survey
from trainer.backends.azureml.skus import GIB
from trainer.backends.azureml.submit import found_or_none
from trainer.backends.azureml.workspace import Place, check_packages, connect, find_place
from trainer.backends.http import Say, patiently
from trainer.backends.remote import Plan
from trainer.config.schema import RunConfig
from trainer.errors import Attempts, BackendError, ConfigError

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

BYTES_A_PARAMETER = 2  # as bases are stored on the hub
NODE_DISK_BYTES = 128 * GIB  # what users have found on nodes, whatever the machine's own disk
ROOM_BYTES = 20 * GIB  # image, packages, checkpoints beside the base


@dataclass(frozen=True, slots=True)
class Details:
    """What `launch` needs of a plan."""

    place: Place
    instance_type: str | None
    num_gpus: int
    timeout_seconds: int


def preflight(config: RunConfig, say: Say) -> Plan:
    """Look at place, machine, data and base. Raises: ConfigError, DataError, MissingDependency, BackendError."""
    check_packages()
    attempts, problems = Attempts(), _problems_of_config(config)
    place, site = _survey(config, problems, say)
    amounts = attempts.make(measure, config, site.machine)
    problems += [*(amounts.problems if amounts else ()), *site.problems]
    if amounts is not None and site.machine is not None:
        problems += _fit(config, amounts, site)
    if problems:
        attempts.errors.append(ConfigError(*problems))
    attempts.end()
    assert place is not None
    assert amounts is not None
    price = price_of(config.azureml, site.instance_type, site.region)
    word = site.instance_type or f"node of {config.azureml.compute}"
    cost = cost_of(config, amounts, site.machine, price, word)
    details = Details(place, site.instance_type, max(1, site.num_gpus or 0), cost.timeout_seconds)
    text, size = job_text(config, details)
    return Plan(config, cost.quote, rows(config, place, site, amounts, size), text, details)


def _survey(config: RunConfig, problems: list[str], say: Say) -> tuple[Place | None, Site]:
    """The workspace as far as it can be reached; what stands in the way is a problem of its own."""
    try:
        place = find_place(config.azureml)
        client = connect(place)
        site = survey(config.azureml, client, place, say)
        _look_at_model(config, site, client, say)
    except (ConfigError, BackendError) as error:
        problems += error.problems
        return None, Site()
    return place, site


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


def _look_at_model(config: RunConfig, site: Site, client: "MLClient", say: Say) -> None:
    """A registered model that is the base; a hub model may need a token, which only the hub knows."""
    base = config.model.base
    if base.startswith("azureml:"):
        name, _, version = base.removeprefix("azureml:").partition(":")
        with site.looking_at("base"):
            get = "reading the registered model"
            if patiently(lambda: found_or_none(lambda: client.models.get(name, version)), get, say) is None:
                site.problems.append(f"model.base: {base!r} was not found in the workspace; correct name or version")
    elif (
        not base.startswith("builtin:")
        and not Path(base.partition("@")[0]).exists()
        and config.azureml.key_vault is None
    ):
        site.unverified.append("whether the node can read the base from the hub; a gated one needs azureml.key_vault")


def _fit(config: RunConfig, amounts: Amounts, site: Site) -> list[str]:
    """Whether number format and base suit the machine."""
    machine, problems = site.machine, []
    assert machine is not None
    if config.model.dtype == "bfloat16" and not machine.gpu.has_bfloat16:
        problems.append(
            f"model.dtype: is 'bfloat16', which the {machine.gpu.name} of {machine.name} has not, expected 'auto' or "
            "'float16'"
        )
    if amounts.num_parameters is not None:
        needed = int(amounts.num_parameters * BYTES_A_PARAMETER) + ROOM_BYTES
        told = f"{needed // GIB} GiB of disk for base, image and checkpoints, and {machine.name} has"
        if needed > max(machine.disk_bytes, NODE_DISK_BYTES):
            problems.append(f"model.base: needs about {told} {machine.disk_bytes // GIB}; choose a machine with more")
        elif needed > min(machine.disk_bytes, NODE_DISK_BYTES):
            site.unverified.append(
                f"disk: about {told} between {machine.disk_bytes // GIB} and 128, by where its node keeps files"
            )
    return problems
