"""Money of questions to a model: prices, the quote before anything is sent, and the limit that no request may cross."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from trainer.backends.openai.catalog import family_of
from trainer.backends.openai.price_list import prices_of
from trainer.backends.quote import CENT, Item, Quote
from trainer.config.openai import OpenAIConfig
from trainer.data.quoting import counted
from trainer.errors import ConfigError
from trainer.workshop.asking.endpoint import ChatAddress
from trainer.workshop.asking.request import BYTES_PER_TOKEN, Answer, Request

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of a million tokens in USD, None where not known, and who says so."""

    input: float | None
    output: float | None
    source: str

    @property
    def is_free(self) -> bool:
        return self.input == 0 and self.output == 0

    def cost(self, input_tokens: float, output_tokens: float) -> float | None:
        """The price of so many tokens; None where it is not known."""
        if self.input is None or self.output is None:
            return None
        return (input_tokens * self.input + output_tokens * self.output) / MILLION

    def most(self, request: Request) -> float | None:
        """More than a request can cost."""
        return self.cost(request.most_tokens, request.max_tokens)

    def paid(self, answer: Answer, most: float | None) -> float | None:
        """The cost of an answer; the most it can be where the endpoint counts no tokens."""
        if answer.input_tokens is None or answer.output_tokens is None:
            return most
        return self.cost(answer.input_tokens, answer.output_tokens)


def prices_for(place: ChatAddress, model: str, price_in: float | None, price_out: float | None) -> Prices:
    """The prices on the command line, else those of the dated list; none on this machine. Raises: ConfigError."""
    if (price_in is None) != (price_out is None):
        given, other = ("--price-out", "--price-in") if price_in is None else ("--price-in", "--price-out")
        raise ConfigError(f"{given}: is given without {other}, expected both; add the other one, or remove it")
    if price_in is not None:
        return Prices(price_in, price_out, "those of the command line")
    if place.is_local:
        return Prices(0.0, 0.0, "an endpoint of this machine is free unless --price-in and --price-out say otherwise")
    if place.service:
        family = family_of(model)
        listed = prices_of(family, OpenAIConfig(service="azure" if place.service == "azure" else "openai"))
        if listed.base_input is not None and listed.base_output is not None:
            taken = f", taking deployment {model!r} for {family}" if place.service == "azure" else ""
            replaced = listed.source.partition("; they change")[0]
            return Prices(
                listed.base_input, listed.base_output, f"{replaced}{taken}; --price-in and --price-out replace them"
            )
    return Prices(None, None, f"none is known for {model!r}; give --price-in and --price-out, in USD a million tokens")


@dataclass(frozen=True, slots=True)
class TokenNeed:
    """Tokens of the requests that are still to be sent: an estimate, and the most they can be."""

    requests: int = 0
    input: int = 0
    output: int = 0
    most_input: int = 0
    most_output: int = 0

    def __add__(self, other: "TokenNeed") -> "TokenNeed":
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__slots__)
        return TokenNeed(*(one + two for one, two in pairs))


def twice(request: Request, answer: int, more: int = 0, most_more: int = 0) -> TokenNeed:
    """The need of a request whose answer has about `answer` tokens; most of all if that has to be given twice.

    `more`: tokens that the request lacks yet; `most_more`: bytes of them.
    """
    again = request.max_tokens * BYTES_PER_TOKEN + request.num_bytes
    most = 2 * (request.most_tokens + most_more) + again
    return TokenNeed(1, request.usual_tokens + more, min(answer, request.max_tokens), most, 2 * request.max_tokens)


def quote_need(need: TokenNeed, prices: Prices, cap: float | None, paid: float, kept: int, about: str) -> Quote:
    """The quote of what is still to be sent; without items where nothing is, or where it is free.

    Raises: ConfigError, for a cap that no price can be compared with.
    """
    if prices.is_free or not need.requests:
        return Quote((), prices.source)
    if cap is not None and prices.input is None:
        raise ConfigError(
            f"--cap: is {cap:,.2f}, and no price is known to compare it with; give --price-in and --price-out, or "
            "remove the cap"
        )
    amount, most = prices.cost(need.input, need.output), prices.cost(need.most_input, need.most_output)
    price = "" if prices.input is None else f" at {prices.input:,.2f} and {prices.output:,.2f} a million"
    what = (
        f"{about}: about {need.requests:,} requests, {need.input:,} tokens to read and "
        f"{need.output:,} to write (estimated){price}"
    )
    return Quote((Item(what, amount, most),), prices.source, notes=tuple(_notes(cap, paid, amount, most, kept)))


def _notes(cap: float | None, paid: float, amount: float | None, most: float | None, kept: int) -> Iterable[str]:
    if kept:
        yield f"{counted(kept, 'answer')} kept from before, {paid:,.4f} USD, not asked for again"
    if amount is None:
        yield "not limited: without a price there is no cap"
        return
    limit = (most or 0.0) if cap is None else cap - paid
    if cap is not None and paid + amount > cap:
        yield f"the cap of {cap:,.2f} USD may end it early; what is answered by then is kept"
    yield f"no request is sent that could bring this above {max(limit, 0.0):,.2f} USD"


def hold_agreed(quote: Quote, agreed: Quote) -> None:
    """Raises: ConfigError, where the price is above the one that was agreed to."""
    if quote.bills and (
        not agreed.bills or (agreed.total is not None and (quote.total is None or quote.total > agreed.total + CENT))
    ):
        raise ConfigError(
            f"the quote is now: {'; '.join(quote.lines())}; expected no more than was agreed to; agree again"
        )


def limit_of(quote: Quote, prices: Prices, cap: float | None, spent: float) -> float | None:
    """The amount that all requests together may reach: the cap, else what the quote can come to."""
    limit = None if prices.is_free else cap
    if limit is None and quote.ceiling is not None and quote.bills:
        limit = spent + quote.ceiling
    return limit


class CapReached(Exception):
    """The next request could cross the limit."""


class Budget:
    """The limit on what is spent in all, and what requests on their way have reserved of it; threads share it."""

    def __init__(self, limit: float | None, spent: float) -> None:
        self.limit, self.spent = limit, spent
        self._reserved: list[float] = []
        self._changed = threading.Condition()

    def reserve(self, most: float | None) -> None:
        """Set the most of a request aside, once it is sure to fit beside what is on its way. Raises: CapReached."""
        if most is None or self.limit is None:
            return
        with self._changed:
            while self.spent + sum(self._reserved) + most > self.limit:
                if not self._reserved:
                    raise CapReached
                self._changed.wait()
            self._reserved.append(most)

    def release(self, most: float | None, cost: float | None) -> None:
        """Replace what was set aside by what it has cost: 0 where it was not executed, the most where nobody knows."""
        with self._changed:
            if most is not None and self.limit is not None:
                self._reserved.remove(most)
            self.spent += cost or 0.0
            self._changed.notify_all()
