"""Prices come from a dated list, are replaced by the config's, and are never guessed."""

import pytest

from trainer.backends.openai.prices import cost, family_of, known_families, prices_of
from trainer.config.openai import OpenAIConfig


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-4.1-mini-2025-04-14", "gpt-4.1-mini"),
        ("ft:gpt-4o-mini-2024-07-18:org:suffix:id", "gpt-4o-mini"),
        ("ft:gpt-4o-mini-2024-07-18:org:suffix:id:ckpt-step-10", "gpt-4o-mini"),
        ("gpt-4o-2024-08-06.ft-0123456789abcdef0123456789abcdef-suffix", "gpt-4o"),
        ("gpt-35-turbo-0125", "gpt-3.5-turbo"),
        ("ftckpt-1", "ftckpt-1"),
    ],
)
def test_a_model_has_a_family(model: str, family: str) -> None:
    assert family_of(model) == family


def test_training_types_have_their_share() -> None:
    prices = {
        kind: prices_of("gpt-4.1", OpenAIConfig(training_type=kind)).training
        for kind in ("Standard", "GlobalStandard", "Developer")
    }
    assert prices == {"Standard": pytest.approx(27.5), "GlobalStandard": 25.0, "Developer": 12.5}
    assert prices_of("gpt-4.1", OpenAIConfig(service="openai")).training == 25.0


def test_an_unknown_price_is_none() -> None:
    prices = prices_of("gpt-9", OpenAIConfig())
    assert (prices.training, prices.input, cost(1000, prices.training)) == (None, None, None)


def test_the_config_s_price_wins_and_is_named() -> None:
    prices = prices_of("gpt-9", OpenAIConfig(training_price=2, hosting_price=0))
    assert (prices.training, prices.hosting, prices.input) == (2, 0, None)
    assert prices.source.startswith("the config's own for training, hosting; else list of 20")


def test_every_listed_price_is_whole() -> None:
    for family in known_families():
        prices = prices_of(family, OpenAIConfig())
        assert None not in (prices.training, prices.input, prices.output, prices.base_input, prices.base_output)
