"""Prices come from Azure's list, a dated file and the config, in that order; each is named, and none is guessed."""

import io
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from tests.manifests import LAUNCH, manifest
from trainer.backends import retail
from trainer.backends.openai import price_list
from trainer.backends.openai.price_list import RegionPrices, known_families, list_region, meter_prices, prices_of
from trainer.backends.openai.prices import above_cap, cost
from trainer.backends.quote import Item, Quote, hold_cap
from trainer.backends.retail import PriceMeter, read_meter
from trainer.config.openai import OpenAIConfig
from trainer.config.schema import RunConfig
from trainer.errors import ConfigError
from trainer.runs import create_run

KINDS = ("Standard", "GlobalStandard", "DataZone", "Developer")


def meter(name: str, price: float, unit: str = "1K", **more: Any) -> PriceMeter:
    return read_meter({"meterName": name, "unitOfMeasure": unit, "retailPrice": price, "type": "Consumption"} | more)


MINI = [
    meter("gpt-4.1-mini FT Training", 0.006),
    meter("gpt-4.1-mini FT Training regional", 0.0066),
    meter("gpt-4.1-mini FT Training global", 0.005),
    meter("gpt-4.1-mini-ft hosting", 1.7, "1 Hour"),
    meter("gpt-4.1-mini-ft input global", 0.0004),
    meter("gpt-4.1-mini-ft output global", 0.0016),
    meter("gpt 4.1 mini ft Outp Dz Tokens", 1.76, "1M"),
    meter("gpt-4.1-mini-ft cached input global", 0.0001),
    meter("gpt-4.1-mini Inp glbl Tokens", 9.0),
    meter("gpt-4.1-mini FT Training global", 700.0, type="Reservation"),
    meter("gpt-4.1-mini-ft input global", 0.0),
    meter("gpt-4.1-nano FT Training global", 0.0015),
    meter("gpt-4.1 FT Training global", 0.025),
]


def region(settings: OpenAIConfig, monkeypatch: pytest.MonkeyPatch, asked: list[str] | None = None) -> RegionPrices:
    """The list of a region that has the meters of one model."""

    def answered(wanted: str) -> list[PriceMeter]:
        if asked is not None:
            asked.append(wanted)
        return MINI

    monkeypatch.setattr(price_list, "list_meters", answered)
    found = list_region(settings, "northeurope")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("family", "kind", "sku", "expected"),
    [
        (
            "gpt-4.1-mini",
            "GlobalStandard",
            "GlobalStandard",
            {"training": 5.0, "hosting": 1.7, "input": 0.4, "output": 1.6, "base_input": 0.4, "base_output": 1.6},
        ),
        ("gpt-4.1-mini", "Standard", "Standard", {"training": 6.6, "hosting": 1.7}),
        (
            "gpt-4.1-mini",
            "Developer",
            "DeveloperTier",
            {"hosting": 1.7, "input": 0.4, "output": 1.6, "base_input": 0.4, "base_output": 1.6},
        ),
        (
            "gpt-4.1-mini",
            "GlobalStandard",
            None,
            {"training": 5.0, "hosting": 1.7, "input": 0.4, "output": 1.76, "base_input": 0.4, "base_output": 1.76},
        ),
        ("gpt-4.1-nano", "GlobalStandard", None, {"training": 1.5}),
        ("gpt-4.1", "GlobalStandard", None, {"training": 25.0}),
        ("gpt-oss-20b", "GlobalStandard", None, {}),
    ],
)
def test_meters_are_read_by_model_kind_and_tier(
    family: str, kind: str, sku: str | None, expected: dict[str, float]
) -> None:
    assert meter_prices(MINI, family, kind, sku) == pytest.approx(expected)


def test_the_list_is_asked_for_the_region_and_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    settings = OpenAIConfig(training_type="GlobalStandard")
    found = prices_of("gpt-4.1-mini", settings, region(settings, monkeypatch, asked))
    assert asked == [
        "serviceName eq 'Foundry Models' and armRegionName eq 'northeurope' and priceType eq 'Consumption'"
    ]
    assert (found.training, found.hosting) == (5.0, 1.7)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert found.source.startswith(f"prices.azure.com on {today}, northeurope; they change")
    assert list_region(settings, None) is None
    assert list_region(OpenAIConfig(service="openai"), "northeurope") is None
    assert len(asked) == 1


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], bytes]) -> None:
    class Opener:
        def open(self, address: str, timeout: float) -> io.BytesIO:
            return io.BytesIO(answer())

    monkeypatch.setattr(urllib.request, "build_opener", Opener)


def unreachable() -> bytes:
    raise URLError(TimeoutError("timed out"))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (unreachable, "<urlopen error timed out>"),
        (lambda: b"<html>", "the answer is no JSON"),
        (lambda: b"\xff\xfe\x00", "the answer is no JSON"),
        (lambda: b"[]", "the answer lists no items"),
        (lambda: b'{"Items": {}}', "the answer lists no items"),
        (lambda: b'{"Items": [[]]}', "an item without a price"),
        (lambda: b'{"Items": [{"meterName": "gpt-4.1-mini FT Training"}]}', "an item without a price"),
    ],
)
def test_a_list_that_cannot_be_read_leaves_the_dated_file_and_its_reason_in_the_source(
    answer: Callable[[], bytes], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = OpenAIConfig(training_type="GlobalStandard")
    answering(monkeypatch, answer)
    without, found = (
        prices_of("gpt-4.1-mini", settings, listed) for listed in (None, list_region(settings, "northeurope"))
    )
    assert (found.training, found.hosting) == (without.training, without.hosting) == (5.0, 1.7)
    assert f"(prices.azure.com could not be read: {reason}); they change" in found.source
    assert "could not be read" not in without.source
    assert "list of 2026-08-12, https://github.com/microsoft/skills" in without.source


def test_a_mistake_of_our_own_is_not_taken_for_a_list_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(item: Any) -> PriceMeter:
        raise TypeError("ours")

    monkeypatch.setattr(retail, "read_meter", mistaken)
    answering(monkeypatch, lambda: b'{"Items": [{"retailPrice": 1.0}]}')
    with pytest.raises(TypeError, match="ours"):
        list_region(OpenAIConfig(), "northeurope")


def test_training_types_have_their_share() -> None:
    prices = {kind: prices_of("gpt-4.1", OpenAIConfig(training_type=kind)).training for kind in KINDS}
    assert prices == pytest.approx({"Standard": 35.75, "GlobalStandard": 25.0, "DataZone": 35.75, "Developer": 12.5})
    assert prices_of("gpt-4.1", OpenAIConfig(service="openai")).training == 25.0


def test_tuned_tokens_cost_what_the_base_s_cost_on_azure_and_more_on_openai() -> None:
    for family in ("gpt-4.1-mini", "gpt-oss-20b"):
        azure = prices_of(family, OpenAIConfig())
        assert (azure.input, azure.output) == (azure.base_input, azure.base_output)
    openai = prices_of("gpt-4.1-mini", OpenAIConfig(service="openai"))
    assert (openai.input, openai.base_input, openai.hosting) == (0.8, 0.4, 0.0)
    assert [prices_of(name, OpenAIConfig()).hosting for name in ("gpt-4.1", "gpt-oss-20b")] == [1.7, 0.3]


def test_an_unknown_price_is_none() -> None:
    prices = prices_of("gpt-9", OpenAIConfig())
    assert (prices.training, prices.input, cost(1000, prices.training)) == (None, None, None)


def test_the_hour_of_a_deployment_has_a_price_whichever_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = OpenAIConfig()
    for listed in (None, region(settings, monkeypatch)):
        prices = prices_of("gpt-9", settings, listed)
        assert prices.hosting == 1.7
        assert prices.source.startswith("list of 2026-08-12, ")


def test_the_config_s_price_is_quoted_and_the_dearest_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = OpenAIConfig(training_type="GlobalStandard", training_price=2, hosting_price=0)
    prices = prices_of("gpt-4.1-mini", settings, region(settings, monkeypatch))
    assert (prices.training, prices.hosting, prices.input) == (2, 0, 0.4)
    assert prices.source.startswith("training, hosting: the config's own; input, output: prices.azure.com on")
    assert (prices.dearest("training"), prices.dearest("hosting")) == (5.0, 1.7)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert prices.differing("training").startswith(
        f"5.00 (prices.azure.com on {today}, northeurope), 5.00 (list of 2026-08-12, "
    )
    assert prices.differing("input") == ""
    assert prices_of("gpt-9", OpenAIConfig(training_price=2)).training == 2


def test_a_cap_holds_for_the_dearest_reading() -> None:
    quote = Quote([Item("training", 2.0, 5.0), Item("comparison", 1.0)], "three")
    assert (quote.total, quote.ceiling) == (3.0, 6.0)
    hold_cap(quote, 6.0)
    with pytest.raises(ConfigError, match=r"is 5.99, the quote is 3.00, and 6.00 USD by the dearest of its prices"):
        hold_cap(quote, 5.99)
    assert Quote([Item("training", None, 5.0)], "one").ceiling is None


@pytest.mark.parametrize(
    ("quoted", "dearest", "said"),
    [
        (2.0, 5.0, "the service has chosen 4 epochs, which come to 20.00 USD, and backend.spend_cap is 10.00"),
        (2.0, 2.5, ""),
        (20.0, None, "the service has chosen 4 epochs, which come to 28.60 USD, and backend.spend_cap is 10.00"),
    ],
)
def test_epochs_of_the_service_are_held_against_the_cap_by_the_dearest_price(
    tmp_path: Path, quoted: float, dearest: float | None, said: str
) -> None:
    """A run that noted no dearest price goes by the dated list: 7.15 a million for this model and type."""
    values = {
        "model": {"base": "gpt-4.1-mini"},
        "data": {"train": "train.jsonl"},
        "training": {"n_epochs": 4},
        "openai": {"training_type": "Standard", "training_price": 0.01},
        "backend": {"kind": "openai", "spend_cap": 10},
        "run": {"root": str(tmp_path)},
    }
    run = create_run(RunConfig.model_validate(values))
    launch = replace(LAUNCH, training_price=quoted, dearest_price=dearest)
    run.write_manifest(manifest(num_tokens=1_000_000, launch=launch))
    assert above_cap(run).partition(": ")[0] == said


def test_every_listed_price_is_whole() -> None:
    for service in ("azure", "openai"):
        settings = OpenAIConfig.model_validate({"service": service})
        for family in price_list._table()[service]["models"]:
            prices = prices_of(family, settings)
            assert None not in (prices.training, prices.input, prices.output, prices.base_input, prices.base_output)
    assert {"gpt-3.5-turbo", "gpt-oss-20b"} <= set(known_families())
