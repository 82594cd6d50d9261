"""How many tokens the service will bill: by the model's own encoding, or an upper bound that says so.

An encoding is a list of byte pairs that tiktoken fetches once. Where it cannot, every byte of text counts as a token:
byte-pair encoding never makes more of them.
"""

import functools
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainer.data.conversations import Conversation, Message

Measure = Callable[[str], int]

LOAD_SECONDS = 20.0  # tiktoken itself would wait for the network for ever
PER_MESSAGE = 4  # the tokens around each message, with its role; OpenAI's cookbook counts 3 and the role
PER_ROW = 3  # the opening of the answer
PER_CALL = 12  # the tokens around a call of a tool, which are not published: generously
ENCODINGS = {"gpt-3.5": "cl100k_base", "gpt-35": "cl100k_base", "gpt-4-": "cl100k_base"}  # all newer ones: o200k_base


@dataclass(frozen=True, slots=True)
class Count:
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


def count(rows: Sequence[Conversation], family: str) -> Count:
    """The tokens of each row, with its tools as JSON."""
    name, measure = encoding_for(family)
    lengths = tuple(row_tokens(row, measure) for row in rows)
    supervised = sum(message_tokens(message, measure) for row in rows for message in row.messages if message.trained)
    images = sum(len(message.images) for row in rows for message in row.messages)
    return Count(lengths, supervised, name, images)


def row_tokens(row: Conversation, measure: Measure) -> int:
    """All tokens of a row: what is billed, whether it is trained or not."""
    tools = measure(json.dumps(row.tools, ensure_ascii=False)) if row.tools else 0
    return PER_ROW + tools + sum(message_tokens(message, measure) for message in row.messages)


def message_tokens(message: Message, measure: Measure) -> int:
    """The tokens of one message."""
    texts = [message.content or "", message.name or "", message.refusal or "", message.tool_call_id or ""]
    calls = sum(PER_CALL + measure(call.name) + measure(call.arguments) for call in message.tool_calls)
    return PER_MESSAGE + calls + sum(measure(text) for text in texts if text)


@functools.cache
def encoding_for(family: str) -> tuple[str, Measure]:
    """The encoding's name and how to count with it; an empty name and the number of bytes where it cannot be loaded."""
    name = next((name for prefix, name in ENCODINGS.items() if f"{family}-".startswith(prefix)), "o200k_base")
    found: list[Measure] = []

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
