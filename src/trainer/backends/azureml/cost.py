"""How long a run takes and what that costs: an estimate with its basis, and the time after which the job is ended."""

from dataclasses import dataclass

from trainer.backends.azureml.job import timeout_seconds
from trainer.backends.azureml.prices import Price
from trainer.backends.azureml.reading import Amounts
from trainer.backends.azureml.skus import Machine
from trainer.backends.quote import Item, Quote
from trainer.config.schema import RunConfig
from trainer.training.plan import make_plan

FLOPS_A_TOKEN = 4  # a parameter: 2 forward, 2 for the gradient of what flows through; frozen weights need no third
UTILIZATION = 0.2  # of the GPU's peak; well-tuned training reaches 0.3 to 0.5, small models and 4-bit bases less
SCALING = 0.8  # of each further GPU
START_HOURS = 0.5  # a node that starts, the image, the base's download, evaluation at the end
LEAST_CAP_HOURS = 2.0
CAP_FACTOR = 3.0  # an estimate that is three times too low ends no run


@dataclass(frozen=True, slots=True)
class Cost:
    """`hours` is None where nothing is known to compute it from."""

    hours: float | None
    basis: str
    timeout_seconds: int
    quote: Quote


def cost_of(config: RunConfig, amounts: Amounts, machine: Machine | None, price: Price, machines_word: str) -> Cost:
    """The estimate, its price, and the time limit that keeps the spend cap."""
    settings = config.azureml
    hours, basis = _hours(config, amounts, machine)
    per_hour = None if price.per_hour is None else price.per_hour * settings.instance_count
    limit = _limit_hours(config, hours, per_hour)
    notes = [
        f"hours: {basis}",
        f"the job is ended after {limit:,.1f} h at the latest{_at_most(config, limit, per_hour)}",
    ]
    if hours is not None and hours > limit:
        notes.append("this is less than the estimate: the run would end before it is done")
    what = "? h" if hours is None else f"{hours:,.1f} h (estimate)"
    rate = "" if price.per_hour is None else f" at {price.per_hour:,.3f} {settings.currency} an hour"
    amount = None if hours is None or per_hour is None else hours * per_hour
    item = Item(f"{what} x {settings.instance_count} {machines_word}{rate}", amount)
    quote = Quote([item], price.source, settings.currency, notes=notes)
    return Cost(hours, basis, timeout_seconds(limit), quote)


def _hours(config: RunConfig, amounts: Amounts, machine: Machine | None) -> tuple[float | None, str]:
    if config.azureml.hours is not None:
        return config.azureml.hours, "azureml.hours of the config"
    if machine is None or amounts.num_parameters is None:
        missing = "the GPU" if machine is None else "the base's size"
        return None, f"not known, as {missing} is not; give azureml.hours"
    plan = make_plan(config, amounts.num_rows, 1, 1)
    tokens = amounts.num_tokens * plan.n_epochs
    num_gpus = machine.num_gpus * config.azureml.instance_count
    speed = machine.gpu.flops * UTILIZATION * (1 + (num_gpus - 1) * SCALING)
    hours = START_HOURS + FLOPS_A_TOKEN * amounts.num_parameters * tokens / speed / 3600
    work = f"{tokens:,} tokens x {amounts.num_parameters / 1e9:,.3g}e9 parameters x {FLOPS_A_TOKEN} operations"
    peak = f"{UTILIZATION:.0%} of the peak of {num_gpus} x {machine.gpu.name}"
    return hours, f"an estimate, not a measurement: {START_HOURS} h to start, and {work} at {peak}; {amounts.basis}"


def _limit_hours(config: RunConfig, hours: float | None, per_hour: float | None) -> float:
    """The config's limit, within what the cap pays for."""
    chosen = config.azureml.max_hours
    if chosen is None:
        chosen = max(LEAST_CAP_HOURS, CAP_FACTOR * hours) if hours is not None else 24.0
        if config.backend.spend_cap is not None and per_hour:
            return config.backend.spend_cap / per_hour
    if config.backend.spend_cap is not None and per_hour:
        return min(chosen, config.backend.spend_cap / per_hour)
    return chosen


def _at_most(config: RunConfig, limit: float, per_hour: float | None) -> str:
    return "" if per_hour is None else f", at {limit * per_hour:,.2f} {config.azureml.currency}"
