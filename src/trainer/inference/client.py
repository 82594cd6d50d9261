"""What a chat needs of a model, wherever it runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

ChatMessage = Mapping[str, Any]  # {"role": …, "content": …}, as in the data files


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Temperature 0 always takes the most likely one."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class ChatClient(Protocol):
    """Answers a conversation in pieces of text, as they come."""

    @property
    def name(self) -> str:
        """What a person calls this model."""
        ...

    def stream(self, messages: Sequence[ChatMessage], sampling: Sampling) -> Iterator[str]: ...
