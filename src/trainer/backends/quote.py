"""What something will cost, said before it is begun."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a quote. `amount` is None where no price is known; it is never guessed."""

    what: str  # 1,234,567 tokens x 3 epochs at 25.00 a million
    amount: float | None


@dataclass(frozen=True, slots=True)
class Quote:
    """What will be spent once, and what goes on billing until it is deleted (`running`, one sentence each)."""

    items: Sequence[Item]
    source: str  # where the prices come from, with their date
    currency: str = "USD"
    running: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def bills(self) -> bool:
        """Whether anything is paid for; a person is asked only then."""
        return bool(self.items or self.running)

    @property
    def total(self) -> float | None:
        """The sum, None where a price is missing."""
        amounts = [item.amount for item in self.items]
        return None if None in amounts else sum(amount for amount in amounts if amount is not None)

    def lines(self) -> list[str]:
        """The quote as a person reads it."""
        told = [f"{item.what}: {self._money(item.amount)}" for item in self.items]
        if len(self.items) != 1:
            told.append(f"in all: {self._money(self.total)}")
        return [*told, f"prices: {self.source}", *self.running, *self.notes]

    def _money(self, amount: float | None) -> str:
        return "price not known" if amount is None else f"{amount:,.2f} {self.currency}"


def hold_cap(quote: Quote, cap: float | None, hint: str = "raise backend.spend_cap, or train on less") -> None:
    """Raises: ConfigError, when the quote is above the cap, or cannot be held against it."""
    if cap is None:
        return
    if quote.total is None:
        raise ConfigError(
            f"backend.spend_cap: is {cap:,.2f}, and no price is known to hold it against; "
            "give the price in the config, or remove the cap"
        )
    if quote.total > cap:
        raise ConfigError(f"backend.spend_cap: is {cap:,.2f}, the quote is {quote.total:,.2f} {quote.currency}; {hint}")
