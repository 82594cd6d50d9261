"""What a deployment consists of, as the ledger knows it."""

from dataclasses import dataclass

from trainer.backends.azureml.record import BACKEND
from trainer.backends.azureml.workspace import Place
from trainer.config.deployment import DeploymentConfig
from trainer.runs.ledger import Thing


@dataclass(frozen=True, slots=True)
class Target:
    """Where a model goes and on what: everything that makes one deployment another one."""

    place: Place
    endpoint: str
    deployment: str
    settings: DeploymentConfig  # with mode, machine and their number as they were decided on
    num_gpus: int
    price: float | None  # of one machine and hour
    currency: str
    price_source: str

    @property
    def instance_type(self) -> str:
        assert self.settings.instance_type is not None
        return self.settings.instance_type

    @property
    def hourly(self) -> float | None:
        """What all machines cost an hour."""
        return None if self.price is None else self.price * self.settings.instance_count

    @property
    def machines(self) -> str:
        return f"{self.settings.instance_count} x {self.instance_type}"

    def delete_deployment(self) -> str:
        return delete_deployment(self.place, self.endpoint, self.deployment)

    def endpoint_thing(self) -> Thing:
        """It costs nothing itself."""
        remove = f"az ml online-endpoint delete -n {self.endpoint} {self.place.options} --yes"
        return Thing(BACKEND, "endpoint", self.endpoint, self.place.arm_id, "", remove)

    def deployment_thing(self) -> Thing:
        price = "a price that is not known" if self.hourly is None else f"{self.hourly:,.2f} {self.currency}"
        bills = f"{price} an hour for {self.machines}, with or without traffic, until it is deleted"
        key = f"{self.endpoint}/{self.deployment}"
        return Thing(BACKEND, "deployment", key, self.place.arm_id, bills, self.delete_deployment())


def delete_deployment(place: Place, endpoint: str, deployment: str) -> str:
    """The command that deletes a deployment."""
    return f"az ml online-deployment delete -e {endpoint} -n {deployment} {place.options} --yes"


def shift_traffic(place: Place, endpoint: str, deployment: str) -> str:
    """The command that gives a deployment all requests."""
    return f'az ml online-endpoint update -n {endpoint} --traffic "{deployment}=100" {place.options}'
