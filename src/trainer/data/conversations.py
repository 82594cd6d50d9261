"""A chat as one object, whatever form of the format its row was written in: made by `read/rows.py`, used by all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function; `arguments` is the JSON string as it was written."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; text parts of `content` are joined to one string, image parts are the URLs of `images`."""

    role: str
    content: str | None
    weight: int = 1
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    refusal: str | None = None
    images: tuple[str, ...] = ()

    @property
    def trained(self) -> bool:
        """Whether the tokens of this message enter the loss."""
        return self.role == "assistant" and self.weight != 0


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row that can be trained, and the place it was read from.

    The older functions, function_call and role function arrive as tools, tool_calls and role tool.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    file: str
    line: int
    parallel_tool_calls: bool | None = None

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"
