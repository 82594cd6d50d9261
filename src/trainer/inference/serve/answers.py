"""Answers in the form of OpenAI's API, whole or as a stream of server-sent events."""

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trainer.inference.thoughts import Thought
from trainer.inference.tool_calls import Call

FinishReason = Literal["stop", "length", "tool_calls"]
THOUGHT = "reasoning_content"  # of a message or a delta, as vLLM and DeepSeek name it
END_OF_STREAM = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request; the end marker counts as generated, and so do those of a thought."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int

    def as_json(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        }


@dataclass(frozen=True, slots=True)
class ChatCompletion:
    """One answer's fixed fields: id, time, model, and a fingerprint of the adapter."""

    model: str
    fingerprint: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(
        self, thought: str, text: str, calls: Sequence[Call], finish_reason: FinishReason, usage: Usage
    ) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        message: dict[str, Any] = {"role": "assistant", "content": text or None if calls else text, "refusal": None}
        if thought:
            message[THOUGHT] = thought
        if calls:
            message["tool_calls"] = list(_as_json(calls))
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        return self._head("chat.completion") | {"choices": [choice], "usage": usage.as_json()}

    def chunk(
        self, delta: Mapping[str, Any], finish_reason: FinishReason | None = None, with_usage: bool = False
    ) -> bytes:
        """One event of a stream; where usage was asked for, every event but the last has it as null."""
        choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": finish_reason}
        body = self._head("chat.completion.chunk") | {"choices": [choice]}
        return event(body | {"usage": None} if with_usage else body)

    def usage_chunk(self, usage: Usage) -> bytes:
        """The last event of a stream, where usage was asked for."""
        return event(self._head("chat.completion.chunk") | {"choices": [], "usage": usage.as_json()})

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def delta_of(piece: Thought | str) -> dict[str, str]:
    """A piece of an answer for a stream."""
    return {THOUGHT: piece.text} if isinstance(piece, Thought) else {"content": piece}


def call_deltas(calls: Sequence[Call]) -> dict[str, Any]:
    """Tool calls for a stream: all at once, as they are known to be whole only at the end."""
    return {"tool_calls": [{"index": index, **call} for index, call in enumerate(_as_json(calls))]}


def _as_json(calls: Sequence[Call]) -> Iterator[dict[str, Any]]:
    for call in calls:
        # A model may write half of a surrogate pair, which UTF-8 has no bytes for: as an escape it is JSON.
        arguments = json.dumps(call.arguments, ensure_ascii=False).encode(errors="backslashreplace").decode()
        function = {"name": call.name, "arguments": arguments}
        yield {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def event(body: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
