"""What a run costs: tokens by the model's own encoding, prices by a dated list, the quote, and the cap on both.

An encoding is a list of byte pairs that tiktoken fetches once. Where it cannot, every byte of text counts as a token:
byte-pair encoding never makes more of them.
"""

import functools
import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from trainer.backends.openai.names import launch_of
from trainer.backends.quote import Item, Quote
from trainer.config.openai import OpenAIConfig
from trainer.config.schema import RunConfig
from trainer.data.conversations import Conversation, Message
from trainer.runs import Run
from trainer.training.plan import auto_epochs

TokenMeasure = Callable[[str], int]

LOAD_SECONDS = 20.0  # tiktoken itself would wait for the network for ever
PER_MESSAGE = 4  # the tokens around each message, with its role; OpenAI's cookbook counts 3 and the role
PER_ROW = 3  # the opening of the answer
PER_CALL = 12  # the tokens around a call of a tool, which are not published: generously
ENCODINGS = {"gpt-3.5": "cl100k_base", "gpt-35": "cl100k_base", "gpt-4-": "cl100k_base"}  # all newer ones: o200k_base

MILLION = 1_000_000
DATED = re.compile(r"-(?:20\d\d-\d\d-\d\d|\d{4})$")  # gpt-4.1-mini-2025-04-14, gpt-3.5-turbo-0125


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens of rows. `encoding` is empty where they are an upper bound."""

    rows: tuple[int, ...]
    num_supervised: int
    encoding: str
    num_images: int = 0

    @property
    def num_tokens(self) -> int:
        return sum(self.rows)

    @property
    def longest(self) -> int:
        return max(self.rows, default=0)

    @property
    def how(self) -> str:
        """Where the number comes from, for people."""
        if self.encoding:
            return f"counted with {self.encoding}"
        return "at most: one token a byte, as the encoding could not be loaded"


def count(rows: Sequence[Conversation], family: str) -> TokenCount:
    """The tokens of each row, with its tools as JSON."""
    name, measure = encoding_for(family)
    lengths = tuple(row_tokens(row, measure) for row in rows)
    supervised = sum(message_tokens(message, measure) for row in rows for message in row.messages if message.trained)
    images = sum(len(message.images) for row in rows for message in row.messages)
    return TokenCount(lengths, supervised, name, images)


def row_tokens(row: Conversation, measure: TokenMeasure) -> int:
    """All tokens of a row: what is billed, whether it is trained or not."""
    tools = measure(json.dumps(row.tools, ensure_ascii=False)) if row.tools else 0
    return PER_ROW + tools + sum(message_tokens(message, measure) for message in row.messages)


def message_tokens(message: Message, measure: TokenMeasure) -> int:
    """The tokens of one message."""
    texts = [message.content or "", message.name or "", message.refusal or "", message.tool_call_id or ""]
    calls = sum(PER_CALL + measure(call.name) + measure(call.arguments) for call in message.tool_calls)
    return PER_MESSAGE + calls + sum(measure(text) for text in texts if text)


@functools.cache
def encoding_for(family: str) -> tuple[str, TokenMeasure]:
    """The encoding's name and how to count with it; an empty name and the number of bytes where it cannot be loaded."""
    name = next((name for prefix, name in ENCODINGS.items() if f"{family}-".startswith(prefix)), "o200k_base")
    found: list[TokenMeasure] = []

    def load() -> None:
        try:
            import tiktoken

            encoding = tiktoken.get_encoding(name)
        except Exception:  # no network, no package, a damaged cache: the bound serves
            return
        found.append(lambda text: len(encoding.encode_ordinary(text)))

    loading = threading.Thread(target=load, daemon=True)
    loading.start()
    loading.join(LOAD_SECONDS)
    return (name, found[0]) if found else ("", num_bytes)


def num_bytes(text: str) -> int:
    """The bound: bytes of UTF-8."""
    return len(text.encode())


@dataclass(frozen=True, slots=True)
class ServicePrices:
    """By the million tokens, and by the hour of a deployment; None where no price is known."""

    training: float | None
    input: float | None
    output: float | None
    base_input: float | None
    base_output: float | None
    hosting: float | None
    source: str


def prices_of(family: str, settings: OpenAIConfig) -> ServicePrices:
    """The prices for models made from `family`, such as gpt-4.1-mini."""
    table = _table()
    listed: dict[str, float] = table["models"].get(family, {})
    share = table["share"][settings.training_type or "Standard"] if settings.service == "azure" else 1.0
    training = listed["training"] * share if listed else None
    own = {name: getattr(settings, f"{name}_price") for name in ("training", "input", "output", "hosting")}
    given = {name: price for name, price in own.items() if price is not None}
    source = (
        f"list of {table['as_of']}, from {table['source']}; they change, openai.training_price and others replace them"
    )
    if given:
        source = f"the config's own for {', '.join(given)}; else {source}"
    return ServicePrices(
        training=given.get("training", training),
        input=given.get("input", listed.get("input")),
        output=given.get("output", listed.get("output")),
        base_input=listed.get("base_input"),
        base_output=listed.get("base_output"),
        hosting=given.get("hosting", table["hosting"] if settings.service == "azure" else 0.0),
        source=source,
    )


def family_of(model: str) -> str:
    """The model's name without its version, its tuning and what Azure spells in another way."""
    name = model.removeprefix("ft:").partition(":")[0].partition(".ft-")[0]
    return DATED.sub("", name).replace("gpt-35-", "gpt-3.5-")


def known_families() -> list[str]:
    """The models of the list: what either service is known to fine-tune."""
    return list(_table()["models"])


def cost(num_tokens: float, price: float | None) -> float | None:
    """The price of so many tokens."""
    return None if price is None else num_tokens * price / MILLION


@functools.cache
def _table() -> dict[str, Any]:
    text = resources.files("trainer.backends.openai").joinpath("prices.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table


def epochs_of(config: RunConfig, num_rows: int) -> int:
    """The epochs of the config, or those that the service's published rule comes to."""
    given = config.training.n_epochs
    return auto_epochs(num_rows) if given == "auto" else given


def quote_run(
    config: RunConfig, prices: ServicePrices, num_rows: int, tokens: TokenCount, comparison: Item | None
) -> Quote:
    """The quote of a run; `comparison` is part of it where base and tuned model answer as soon as it has succeeded."""
    epochs = epochs_of(config, num_rows)
    chosen = "" if config.training.n_epochs != "auto" else " (the service's own rule)"
    price = "" if prices.training is None else f" at {prices.training:,.2f} a million"
    what = f"training: {tokens.num_tokens:,} tokens ({tokens.how}) x {epochs} epochs{chosen}{price}"
    items = [Item(what, cost(tokens.num_tokens * epochs, prices.training))]
    if comparison is not None:
        items.append(comparison)
    return Quote(tuple(items), prices.source, running=_running(config, prices), notes=tuple(_notes(config, tokens)))


def above_cap(run: Run) -> str:
    """Why the job costs more than it may, once the service has chosen its epochs; empty where nothing shows it."""
    config = run.config()
    cap, epochs = config.backend.spend_cap, config.training.n_epochs
    if cap is None or epochs == "auto":
        return ""
    prices = prices_of(launch_of(run).family, config.openai)
    amount = cost(run.manifest().num_tokens * epochs, prices.training)
    if amount is None or amount <= cap:
        return ""
    return (
        f"the service has chosen {epochs} epochs, which come to {amount:,.2f} USD, and backend.spend_cap is {cap:,.2f}"
        ": the job is cancelled; raise the cap, or set training.n_epochs, and start a new run"
    )


def _running(config: RunConfig, prices: ServicePrices) -> tuple[str, ...]:
    if config.openai.service != "azure":
        return ("nothing goes on billing: a tuned model needs no deployment here and is paid by the token",)
    hosting = "price not known" if prices.hosting is None else f"{prices.hosting:,.2f} USD an hour"
    return (f"nothing goes on billing by itself; a deployment, made by trainer deploy, costs {hosting}",)


def _notes(config: RunConfig, tokens: TokenCount) -> list[str]:
    notes = ["not billed: waiting, failed jobs, safety checks; a cancelled job is billed for what it has trained"]
    if config.training.n_epochs == "auto":
        notes.append("the service decides the epochs; set training.n_epochs to fix the price")
    if tokens.num_images:
        notes.append(f"{tokens.num_images:,} images are not in the count: their tokens depend on their sizes")
    return notes
