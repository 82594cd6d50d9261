"""Numbers among a command's options that no endpoint is asked with."""

from collections.abc import Iterable
from typing import Protocol

Number = tuple[str, float, str, bool]  # the option, its value, what is expected, and whether it is so


class AskingOptions(Protocol):
    """Options that every command has that asks an endpoint."""

    @property
    def concurrency(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def cap(self) -> float | None: ...
    @property
    def price_in(self) -> float | None: ...
    @property
    def price_out(self) -> float | None: ...


def limits(given: AskingOptions) -> tuple[Number, ...]:
    """The numbers of these options."""
    return (
        ("concurrency", given.concurrency, "1 to 64", 1 <= given.concurrency <= 64),
        ("max-tokens", given.max_tokens, "64 or more", given.max_tokens >= 64),
        ("cap", given.cap or 0.0, "more than 0", given.cap is None or given.cap > 0),
        ("price-in", given.price_in or 0.0, "0 or more", (given.price_in or 0) >= 0),
        ("price-out", given.price_out or 0.0, "0 or more", (given.price_out or 0) >= 0),
    )


def wrong(numbers: Iterable[Number]) -> list[str]:
    """A sentence about each number that is not as expected."""
    return [
        f"--{name}: is {value:g}, expected {wanted}; correct it"
        for name, value, wanted, is_right in numbers
        if not is_right
    ]
