"""A chat as one object, whatever form of the format its row was written in: made by `read/rows.py`, used by all."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

_TAGGED = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)
_MESSAGE = re.compile(r"\bmessages\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function; `arguments` is the JSON string as it was written."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; text parts of `content` are joined to one string, image parts are the URLs of `images`.

    `reasoning_content` is the thought before an assistant's answer.
    """

    role: str
    content: str | None
    weight: int = 1
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    refusal: str | None = None
    images: tuple[str, ...] = ()
    reasoning_content: str | None = None

    @property
    def trained(self) -> bool:
        """True if the tokens of this message enter the loss."""
        return self.role == "assistant" and self.weight != 0

    @property
    def has_thought(self) -> bool:
        """True of an answer that begins with a thought, in its own key or in tags."""
        if self.reasoning_content:
            return True
        tagged = _TAGGED.match(self.content or "") if self.role == "assistant" else None
        return tagged is not None and bool(tagged[1].strip())


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row that can be trained, and the place it was read from.

    The older functions, function_call and role function arrive as tools, tool_calls and role tool. Of a preference row
    `messages` are the prompt and the preferred answer; `non_preferred` is the other answer to the first `num_prompt`.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    file: str
    line: int
    parallel_tool_calls: bool | None = None
    num_prompt: int = 0
    non_preferred: tuple[Message, ...] = ()

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def has_thought(self) -> bool:
        """True if an answer has a thought before it, in its own key or in tags."""
        return any(message.has_thought for message in (*self.messages, *self.non_preferred))

    @property
    def branches(self) -> "tuple[Conversation, ...]":
        """Conversations that a model reads one at a time: of a preference row one for each of its two answers."""
        if not self.non_preferred:
            return (self,)
        preferred = replace(self, non_preferred=())
        return preferred, replace(preferred, messages=self.messages[: self.num_prompt] + self.non_preferred)

    def where(self, index: int) -> str:
        """Name of the message in findings."""
        if not self.non_preferred:
            return f"messages[{index}]"
        in_prompt = index < self.num_prompt
        return f"input.messages[{index}]" if in_prompt else f"preferred_output[{index - self.num_prompt}]"


def in_pair(text: str, num_prompt: int, answer: str) -> str:
    """A sentence about the messages of a prompt with an answer, in the names that they have in a preference row."""

    def named(match: "re.Match[str]") -> str:
        index = int(match[1])
        return f"input.messages[{index}]" if index < num_prompt else f"{answer}[{index - num_prompt}]"

    return _MESSAGE.sub(named, text)
