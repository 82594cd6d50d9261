"""Requests to the model and its answers, apart from the way in which an endpoint is asked."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

Stage = Literal["write", "judge", "repair"]
BYTES_PER_TOKEN = 4  # of text in most languages, for an estimate; no token has less than one byte of it
MESSAGE_TOKENS = 16  # around each message: generously
SCHEMA_TOKENS = 200  # that a service adds to a schema of its own accord: generously


@dataclass(frozen=True)
class Request:
    """One question to the model. Equal requests have equal keys, and are paid once."""

    stage: Stage
    subject: str  # whose question it is, such as a chunk's
    messages: Sequence[Mapping[str, str]]
    name: str  # of the schema
    schema: Mapping[str, Any]
    max_tokens: int
    temperature: float
    seed: int

    @cached_property
    def content(self) -> str:
        """The request in one spelling; its subject changes nothing."""
        asked = [self.messages, self.schema, self.max_tokens, self.temperature, self.seed]
        return json.dumps(asked, ensure_ascii=True, sort_keys=True)

    def key(self, url: str, model: str) -> str:
        """Digest of the request, the endpoint and the model."""
        return digest(url, model, self.content)

    @property
    def num_bytes(self) -> int:
        """The bytes of its texts and its schema."""
        texts = sum(len(message["content"].encode("utf-8", "replace")) for message in self.messages)
        return texts + len(json.dumps(self.schema, ensure_ascii=False).encode())

    @property
    def most_tokens(self) -> int:
        """More tokens than the request can be billed for: one a byte, twice the schema, and what is around them."""
        schema = len(json.dumps(self.schema, ensure_ascii=False).encode())
        return self.num_bytes + schema + MESSAGE_TOKENS * (len(self.messages) + 1) + SCHEMA_TOKENS

    @property
    def usual_tokens(self) -> int:
        """Estimate of the tokens that the request is billed for."""
        return self.num_bytes // BYTES_PER_TOKEN + MESSAGE_TOKENS * len(self.messages)


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer. Tokens are None where the endpoint does not count them."""

    text: str
    ended: bool  # False where it was cut off at the limit
    id: str
    input_tokens: int | None
    output_tokens: int | None


def digest(*words: str) -> str:
    """SHA-256 of the words, each with its length before it."""
    whole = hashlib.sha256()
    for word in words:
        data = word.encode("utf-8", "surrogatepass")
        whole.update(f"{len(data)}:".encode() + data)
    return whole.hexdigest()
