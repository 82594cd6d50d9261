"""Interface of a chat to a model, wherever that runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trainer.inference.thoughts import Thought
from trainer.inference.tool_calls import Call

ChatMessage = Mapping[str, Any]  # {"role": …, "content": …}, as in the data files
Tool = Mapping[str, Any]
Piece = str | Thought | Call  # of an answer: its text, what it thought before, a call behind both


@dataclass(frozen=True, slots=True)
class Sampling:
    """Choice of the next token. Temperature 0 always takes the most likely one."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, without control tokens and with its thought apart; `ended` is False where it was cut off."""

    text: str
    calls: tuple[Call, ...]
    ended: bool
    generated: str = ""  # every token as text, where the tokens are known
    thought: str = ""


class ReplyClient(Protocol):
    """Answers a conversation as a whole."""

    def reply(self, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool] = ()) -> Reply: ...


class ChatClient(Protocol):
    """Answers a conversation in pieces of thought and text, as they come, and with the calls of tools at its end."""

    @property
    def name(self) -> str:
        """Name for people."""
        ...

    def stream(
        self, messages: Sequence[ChatMessage], sampling: Sampling, tools: Sequence[Tool] = ()
    ) -> Iterator[Piece]: ...
