"""Everything that can be known about a run before anything is created or costs."""

from dataclasses import dataclass

from trainer.backends.azureml.job import timeout_seconds
from trainer.backends.azureml.workspace import Place, find_place
from trainer.backends.http import Say
from trainer.backends.quote import Quote
from trainer.backends.remote import Plan
from trainer.config.schema import RunConfig


@dataclass(frozen=True, slots=True)
class Details:
    """What `launch` needs of a plan."""

    place: Place
    instance_type: str | None
    num_gpus: int
    timeout_seconds: int


def preflight(config: RunConfig, say: Say) -> Plan:
    """Check it."""
    place = find_place(config.azureml)
    details = Details(place, config.azureml.instance_type, 1, timeout_seconds(2))
    return Plan(config, Quote([], "none"), [("workspace", str(place))], "", details)
