"""Price of a run: tokens by the model's own encoding, prices by a dated list, the quote, and the cap on both.

An encoding is a list of byte pairs that tiktoken fetches once. Where it cannot, every byte of text counts as a token:
byte-pair encoding never makes more of them.
"""

import functools
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainer.backends.openai.catalog import find_in_catalog
from trainer.backends.openai.client import OURS
from trainer.backends.openai.names import launch_of
from trainer.backends.openai.price_list import ServicePrices, prices_of
from trainer.backends.quote import Item, Quote
from trainer.config.schema import RunConfig
from trainer.data.conversations import Conversation, Message
from trainer.kinds import learns_from_pairs
from trainer.runs import Run
from trainer.training.plan import auto_epochs

TokenMeasure = Callable[[str], int]

LOAD_SECONDS = 20.0  # tiktoken itself would wait for the network for ever
PER_MESSAGE = 4  # the tokens around each message, with its role; OpenAI's cookbook counts 3 and the role
PER_ROW = 3  # the opening of the answer
PER_CALL = 12  # the tokens around a call of a tool, which are not published: generously
ENCODINGS = {"gpt-3.5": "cl100k_base", "gpt-35": "cl100k_base", "gpt-4-": "cl100k_base"}  # all newer ones: o200k_base

OPEN = ""  # the family of a base of which no encoding and no price is listed: one of a server of this trainer
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens of rows. `encoding` is empty where they are an upper bound; an estimate is by another model's encoding.

    `rows` are what an epoch trains, which counts the prompt of a preference row with each answer; `lengths` are what
    the model reads at a time.
    """

    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    num_supervised: int
    encoding: str
    num_images: int = 0
    is_estimate: bool = False

    @property
    def is_exact(self) -> bool:
        """True where a row's length shows that it is too long."""
        return bool(self.encoding) and not self.is_estimate

    @property
    def num_tokens(self) -> int:
        return sum(self.rows)

    @property
    def longest(self) -> int:
        return max(self.lengths, default=0)

    @property
    def how(self) -> str:
        """Source of the number, for people."""
        if self.encoding:
            return f"{'estimated' if self.is_estimate else 'counted'} with {self.encoding}"
        return "at most: one token a byte, as the encoding could not be loaded"


def count(rows: Sequence[Conversation], family: str) -> TokenCount:
    """The tokens of each row, with its tools as JSON."""
    name, measure = encoding_for(family)
    branches = [[row_tokens(branch, measure) for branch in row.branches] for row in rows]
    supervised = sum(message_tokens(message, measure) for row in rows for message in row.messages if message.trained)
    images = sum(len(message.images) for row in rows for message in row.messages)
    row = find_in_catalog(family)
    is_estimate = row is not None and row.own_tokenizer
    return TokenCount(tuple(map(sum, branches)), tuple(map(max, branches)), supervised, name, images, is_estimate)


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
    if family == OPEN:
        return "", num_bytes
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


def cost(num_tokens: float | None, price: float | None) -> float | None:
    """The price of so many tokens; None where number or price is not known."""
    return None if price is None or num_tokens is None else num_tokens * price / MILLION


def epochs_of(config: RunConfig, num_rows: int) -> int:
    """The epochs of the config, or those that the service's published rule comes to."""
    given = config.training.n_epochs
    return auto_epochs(num_rows) if given == "auto" else given


def quote_run(
    config: RunConfig, prices: ServicePrices, num_rows: int, tokens: TokenCount, comparison: Item | None
) -> Quote:
    """The quote of a run; `comparison` is part of it where base and tuned model answer as soon as it has succeeded."""
    if config.openai.service == OURS:
        return Quote((), "the server's own")
    epochs = epochs_of(config, num_rows)
    chosen = "" if config.training.n_epochs != "auto" else " (the service's own rule)"
    price = "" if prices.training is None else f" at {prices.training:,.2f} a million"
    what = f"training: {tokens.num_tokens:,} tokens ({tokens.how}) x {epochs} epochs{chosen}{price}"
    num_trained = tokens.num_tokens * epochs
    items = [Item(what, cost(num_trained, prices.training), cost(num_trained, prices.dearest("training")))]
    if comparison is not None:
        items.append(comparison)
    return Quote(
        tuple(items), prices.source, running=_running(config, prices), notes=tuple(_notes(config, tokens, prices))
    )


def quoted_price(run: Run, family: str) -> float | None:
    """The price of a million trained tokens as it was quoted, else by what stands here without asking anybody."""
    manifest = run.find_manifest()
    quoted = None if manifest is None or manifest.launch is None else manifest.launch.training_price
    return prices_of(family, run.config().openai).training if quoted is None else quoted


def above_cap(run: Run) -> str:
    """Excess over the cap in words, once the service has chosen the epochs; empty where nothing shows one."""
    config = run.config()
    cap, epochs = config.backend.spend_cap, config.training.n_epochs
    if cap is None or epochs == "auto":
        return ""
    launch = launch_of(run)
    price = launch.dearest_price or prices_of(launch.family, config.openai).dearest("training")
    amount = cost(run.manifest().num_tokens * epochs, price)
    if amount is None or amount <= cap:
        return ""
    return (
        f"the service has chosen {epochs} epochs, which come to {amount:,.2f} USD, and backend.spend_cap is {cap:,.2f}"
        ": the job is cancelled; raise the cap, or set training.n_epochs, and start a new run"
    )


def _running(config: RunConfig, prices: ServicePrices) -> tuple[str, ...]:
    if config.openai.service != "azure":
        return ("nothing bills afterwards: a tuned model needs no deployment here and is paid by the token",)
    hosting = "price not known" if prices.hosting is None else f"{prices.hosting:,.2f} USD an hour"
    return (f"nothing bills afterwards; a deployment, made by trainer deploy, costs {hosting}",)


def _notes(config: RunConfig, tokens: TokenCount, prices: ServicePrices) -> list[str]:
    notes = ["not billed: waiting, failed jobs, safety checks; a cancelled job is billed for what it has trained"]
    if readings := prices.differing("training"):
        notes.append(f"a million trained tokens: {readings}; a spend cap is compared with the dearest")
    if learns_from_pairs(config.training.method):
        notes.append(
            "the service does not publish how it bills a preference row: it is counted as its prompt with each answer, "
            "the dearest reading"
        )
    if config.training.n_epochs == "auto":
        notes.append("the service decides the epochs; set training.n_epochs to fix the price")
    if tokens.num_images:
        notes.append(f"{tokens.num_images:,} images are not in the count: their tokens depend on their sizes")
    return notes
