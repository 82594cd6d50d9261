"""Quotes: the price of something, said before it is begun."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from trainer.errors import ConfigError
from trainer.runs import Run
from trainer.runs.queue import STARTED_BY_QUEUE, Agreed, Queue, agreed_of

CENT = 0.005  # half of one: sums of floats
AGREED = "agreed_quote"  # in a run's status


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a quote. `amount` is None where no price is known; it is never guessed."""

    what: str  # 1,234,567 tokens x 3 epochs at 25.00 a million
    amount: float | None
    dearest: float | None = None  # by the source with the highest price, where several have one


@dataclass(frozen=True, slots=True)
class Quote:
    """One-time prices, and what keeps billing until it is deleted (`running`, one sentence each)."""

    items: Sequence[Item]
    source: str  # where the prices come from, with their date
    currency: str = "USD"
    running: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def bills(self) -> bool:
        """True if anything is paid for; a person is asked only then."""
        return bool(self.items or self.running)

    @property
    def total(self) -> float | None:
        """The sum, None where a price is missing."""
        amounts = [item.amount for item in self.items]
        return None if None in amounts else sum(amount for amount in amounts if amount is not None)

    @property
    def ceiling(self) -> float | None:
        """The sum by the dearest reading of each price, None where a price is missing."""
        if self.total is None:
            return None
        return sum(max(item.amount or 0.0, item.dearest or 0.0) for item in self.items)

    def agreed(self) -> Agreed | None:
        """The quote as the queue keeps it; None where nothing bills."""
        return Agreed(self.total, self.ceiling, self.currency, tuple(self.lines())) if self.bills else None

    def lines(self) -> list[str]:
        """The quote as a person reads it."""
        lines = [f"{item.what}: {self._money(item.amount)}" for item in self.items]
        if len(self.items) != 1:
            lines.append(f"in all: {self._money(self.total)}")
        return [*lines, f"prices: {self.source}", *self.running, *self.notes]

    def _money(self, amount: float | None) -> str:
        return "price not known" if amount is None else f"{amount:,.2f} {self.currency}"


def hold_cap(
    quote: Quote,
    cap: float | None,
    hint: str = "raise backend.spend_cap, or train on less",
    name: str = "backend.spend_cap",
) -> None:
    """Raises: ConfigError, when the quote is above the cap called `name`, or cannot be compared with it."""
    if cap is None:
        return
    if quote.total is None:
        raise ConfigError(
            f"{name}: is {cap:,.2f}, and no price is known to compare it with; "
            "give the price in the config, or remove the cap"
        )
    if quote.total > cap:
        raise ConfigError(f"{name}: is {cap:,.2f}, the quote is {quote.total:,.2f} {quote.currency}; {hint}")
    if quote.ceiling is not None and quote.ceiling > cap:
        raise ConfigError(
            f"{name}: is {cap:,.2f}, the quote is {quote.total:,.2f}, and {quote.ceiling:,.2f} "
            f"{quote.currency} by the dearest of its prices; {hint}"
        )


class NotAgreed(ConfigError):
    """A run would start at a price that nobody has agreed to."""

    def __init__(self, words: str, quote: Quote) -> None:
        super().__init__(words)
        self.quote = quote


def note_agreed(run: Run, quote: Quote) -> None:
    """Keep with the run the price that a person has just agreed to; nothing where it bills nothing."""
    if (agreed := quote.agreed()) is not None:
        run.set_status(run.state, **{AGREED: asdict(agreed)})


def agreed_with(run: Run) -> Agreed | None:
    """The price that was agreed to when the run was made, or since; None where nothing readable says so."""
    try:
        return agreed_of(run.status()[AGREED])
    except (LookupError, TypeError):
        return None


def hold_agreed_price(quote: Quote, run: Run) -> None:
    """Hold the quote of a run that begins now against the one that was agreed to.

    Raises: NotAgreed, above that; a ConfigError, where the queue starts the run, which has then failed.
    """
    entry = next((entry for entry in Queue(run.path.parent).entries() if entry.run == run.name), None)
    agreed = (None if entry is None else entry.quote) or agreed_with(run)
    if not quote.bills or (agreed is not None and quote.currency == agreed.currency and not is_above(quote, agreed)):
        return
    found = f"run {run.name!r}: its quote is now: {'; '.join(quote.lines())}; expected "
    found += "one that was agreed to" if agreed is None else f"no more than was agreed to: {'; '.join(agreed.lines)}"
    if entry is None and STARTED_BY_QUEUE not in os.environ:
        raise NotAgreed(f"{found}; see it and agree in a terminal: trainer resume {run.path}", quote)
    words = f"{found}; start it at this price with: trainer resume {run.path}"
    run.set_status("failed", error=words)
    run.event(words, level="error")
    raise ConfigError(words)


def is_above(quote: Quote, agreed: Agreed) -> bool:
    """True where a price is higher than agreed, or no longer known."""
    pairs = ((quote.total, agreed.total), (quote.ceiling, agreed.ceiling))
    return any(old is not None and (new is None or new > old + CENT) for new, old in pairs)
