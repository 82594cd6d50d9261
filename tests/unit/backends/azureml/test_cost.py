"""Prices and hours: the list's or the user's figure, an estimate with its basis, and a limit that keeps the cap."""

from typing import Any

import pytest

from trainer.backends.azureml import machines
from trainer.backends.azureml.estimate import START_HOURS, Workload, cost_of, parameters_in
from trainer.backends.azureml.machines import Price, price_of
from trainer.backends.azureml.sizes import find_machine
from trainer.backends.retail import UnreadablePrices, read_meter
from trainer.config import RunConfig


def config(cap: float | None = None, **azureml: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"base": "builtin:tiny"},
            "data": {"train": "x.jsonl"},
            "training": {"n_epochs": 2},
            "backend": {"kind": "azureml", "spend_cap": cap},
            "azureml": azureml,
        }
    )


def meter(
    price: float, name: str = "NC24ads A100 v4", product: str = "Virtual Machines", **others: Any
) -> dict[str, Any]:
    return {"retailPrice": price, "meterName": name, "productName": product, "unitOfMeasure": "1 Hour",
            "type": "Consumption"} | others  # fmt: skip


LIST = [
    meter(4.0), meter(3.9), meter(1.0, "NC24ads A100 v4 Spot"), meter(0.8, "NC24ads A100 v4 Low Priority"),
    meter(9.0, product="Virtual Machines Windows"), meter(30000.0, type="Reservation"), meter(0.0),
    meter(77.0, unitOfMeasure="1/Month"),
]  # fmt: skip


def listed(items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, **azureml: Any) -> Price:
    monkeypatch.setattr(machines, "list_meters", lambda *words: [read_meter(item) for item in items])
    return price_of(config(**azureml).azureml, "Standard_NC24ads_A100_v4", "eastus")


def test_the_dearest_meter_of_the_kind_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed(LIST, monkeypatch).per_hour == 4.0
    assert listed(LIST, monkeypatch, tier="low_priority").per_hour == 0.8
    assert listed(LIST[:3], monkeypatch, tier="low_priority").per_hour == 1.0


def test_a_price_is_never_invented(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed([], monkeypatch).per_hour is None
    assert listed([meter(9.0, product="Virtual Machines Windows")], monkeypatch).per_hour is None

    def unreachable(*words: str) -> None:
        raise UnreadablePrices("timed out")

    monkeypatch.setattr(machines, "list_meters", unreachable)
    offline = price_of(config().azureml, "Standard_NC24ads_A100_v4", "eastus")
    assert offline.per_hour is None
    assert offline.source == "prices.azure.com gave none (timed out); give azureml.price_per_hour"
    assert price_of(config(price_per_hour=3.5).azureml, None, None).per_hour == 3.5


MACHINE = find_machine("standard_nc24ads_a100_v4")
WORKLOAD = Workload(100, 0, 1_000_000, 8e9, "counted", config())


def test_hours_are_operations_over_speed_and_are_called_an_estimate() -> None:
    cost = cost_of(config(), WORKLOAD, MACHINE, Price(4.0, "list"), "machine")
    # 2 epochs of 1e6 tokens, 4 operations for each of 8e9 parameters, 20 % of 312e12 a second
    assert cost.hours == pytest.approx(START_HOURS + 2e6 * 4 * 8e9 / (0.2 * 312e12) / 3600)
    assert cost.quote.total == pytest.approx(cost.hours * 4.0)
    assert "estimate" in " ".join(cost.quote.lines())


def test_pairs_are_read_once_more_for_the_reference() -> None:
    settings = config()
    dpo = settings.model_copy(update={"training": settings.training.model_copy(update={"method": "dpo"})})
    cost = cost_of(dpo, WORKLOAD, MACHINE, Price(4.0, "list"), "machine")
    # as above, and half of the operations for one pass forward
    assert cost.hours == pytest.approx(START_HOURS + 2.5e6 * 4 * 8e9 / (0.2 * 312e12) / 3600)


def test_instances_multiply_the_price() -> None:
    one, two = (
        cost_of(config(instance_count=n, hours=3), WORKLOAD, MACHINE, Price(4.0, ""), "m").quote.total for n in (1, 2)
    )
    assert (one, two) == (12.0, 24.0)


@pytest.mark.parametrize(
    ("cap", "azureml", "hours"),
    [
        (20.0, {}, 5.0),
        (20.0, {"max_hours": 3}, 3.0),
        (20.0, {"max_hours": 9}, 5.0),
        (20.0, {"instance_count": 2}, 2.5),
        (None, {"hours": 4}, 12.0),
        (None, {"hours": 0.1}, 2.0),
    ],
)
def test_the_cap_becomes_the_jobs_time_limit(cap: float | None, azureml: dict[str, Any], hours: float) -> None:
    cost = cost_of(config(cap, **azureml), WORKLOAD, MACHINE, Price(4.0, ""), "machine")
    assert cost.timeout_seconds == hours * 3600


def test_what_is_not_known_is_said_and_not_guessed() -> None:
    unknown = Workload(100, 0, 1_000_000, None, "guessed", config())
    cost = cost_of(config(), unknown, MACHINE, Price(4.0, ""), "machine")
    assert (cost.hours, cost.quote.total) == (None, None)
    assert "azureml.hours" in " ".join(cost.quote.lines())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("meta-llama/Llama-3.1-8B-Instruct", 8e9), ("HuggingFaceTB/SmolLM2-135M", 135e6), ("x/Qwen2.5-0.5B", 0.5e9),
     ("x/phi-4", None), ("x/gpt2", None)],
)  # fmt: skip
def test_a_name_that_states_its_size(name: str, parameters: float | None) -> None:
    assert parameters_in(name) == parameters
