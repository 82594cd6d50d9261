"""What a quote says, and what it is held against."""

import pytest

from trainer.backends.quote import Item, Quote, hold_cap
from trainer.errors import ConfigError

KNOWN = Quote([Item("training", 12.5), Item("evaluation", 0.5)], "a price list of 2026-11-01", running=["1.70 an hour"])
UNKNOWN = Quote([Item("training", None)], "none")


def test_a_quote_adds_up_and_names_its_source() -> None:
    assert KNOWN.total == 13.0
    assert KNOWN.lines() == [
        "training: 12.50 USD",
        "evaluation: 0.50 USD",
        "in all: 13.00 USD",
        "prices: a price list of 2026-11-01",
        "1.70 an hour",
    ]


def test_an_unknown_price_is_said_and_never_counted_as_nothing() -> None:
    assert UNKNOWN.total is None
    assert UNKNOWN.lines()[0] == "training: price not known"


def test_a_quote_above_the_cap_is_refused_and_one_at_it_is_not() -> None:
    hold_cap(KNOWN, 13.0)
    hold_cap(KNOWN, None)
    with pytest.raises(ConfigError, match=r"^backend.spend_cap: is 12.99, the quote is 13.00 USD; "):
        hold_cap(KNOWN, 12.99)


def test_a_cap_without_a_price_is_refused() -> None:
    with pytest.raises(ConfigError, match="no price is known to compare it with"):
        hold_cap(UNKNOWN, 5.0)
