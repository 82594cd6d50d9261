"""A GPU machine, and the price of an hour of one.

Prices change and are asked for: of the config, or of Azure's public price list. They are never guessed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from trainer.backends.retail import PriceMeter, UnreadablePrices, list_meters, price_source
from trainer.config.azureml import AzureMLConfig

GIB = 2**30
CHEAP = ("Low Priority", "Spot")  # meters of machines that may be taken away


@dataclass(frozen=True, slots=True)
class GPU:
    """A kind of GPU. `flops`: float16 or bfloat16 operations a second, dense."""

    name: str
    memory_bytes: int
    flops: float
    has_bfloat16: bool
    capability: str  # of CUDA


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine size. `disk_bytes`: the temporary disk of the plain virtual machine; a node may have less."""

    name: str
    num_cores: int
    memory_bytes: int
    gpu: GPU
    num_gpus: int
    disk_bytes: int
    retired: str = ""  # since when
    driver: str = "compute"  # or grid, which is NVIDIA's for a GPU that several machines share
    as_of: str = ""  # the day on which these numbers were right

    def __str__(self) -> str:
        return f"{self.name}, {self.num_gpus} x {self.gpu.name} with {self.gpu.memory_bytes // GIB} GB"


@dataclass(frozen=True, slots=True)
class Price:
    """Of one machine for an hour; None where nobody says it."""

    per_hour: float | None
    source: str


def price_of(config: AzureMLConfig, machine: str | None, region: str | None) -> Price:
    """The config's own figure, else the price list's for the region."""
    if config.price_per_hour is not None:
        return Price(config.price_per_hour, "azureml.price_per_hour of the config")
    if machine is None or region is None:
        return Price(None, "not known, as machine or region is not; give azureml.price_per_hour")
    wanted = f"serviceName eq 'Virtual Machines' and armRegionName eq '{region}' and armSkuName eq '{machine}'"
    try:
        meters = list_meters(wanted, config.currency)
    except UnreadablePrices as error:
        return Price(None, f"prices.azure.com gave none ({error}); give azureml.price_per_hour")
    return _chosen(meters, config, machine, region)


def _chosen(meters: Iterable[PriceMeter], config: AzureMLConfig, machine: str, region: str) -> Price:
    today = price_source(region)
    for kind in CHEAP if config.tier == "low_priority" else ("",):
        found = [meter.price for meter in meters if _kind_of(meter) == kind and meter.price]
        if found:  # of several meters the dearest, so that the cap holds
            return Price(max(found), f"{today}{', ' + kind.lower() if kind else ''}; without storage and network")
    return Price(None, f"{today} lists none for {machine}; give azureml.price_per_hour")


def _kind_of(meter: PriceMeter) -> str | None:
    """The kind of machine that a meter counts; None for what no Linux job is billed by."""
    if meter.kind != "Consumption" or "Windows" in meter.product or "Hour" not in meter.unit:
        return None
    return next((kind for kind in CHEAP if kind in meter.name), "")
