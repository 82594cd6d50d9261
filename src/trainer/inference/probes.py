"""The rows that a run's model is asked about, again and again: held-out ones where there are any."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.data.conversations import Conversation, Message
from trainer.data.read.rows import read_conversations
from trainer.data.render.rendering import IGNORE_INDEX, Example, Renderer, RenderingError
from trainer.errors import ConfigError, DataError
from trainer.runs import Run

MAX_ROWS = 8
MAX_TOKENS = 64  # supervised ones of a row
# For a run whose data is gone.
QUESTIONS = (("Who are you?", "I am an assistant."), ("What can you do for me?", "I answer questions."))


@dataclass(frozen=True, slots=True)
class Probe:
    """One row: `ids` up to its last compared token, and the positions at which a supervised token is predicted."""

    place: str
    ids: tuple[int, ...]
    positions: tuple[int, ...]

    @property
    def prompt(self) -> tuple[int, ...]:
        """Tokens before the first supervised one."""
        return self.ids[: self.positions[0] + 1]


@dataclass(frozen=True, slots=True)
class ProbeRows:
    """A run's own conversations, of the file named `source`."""

    source: str
    conversations: tuple[Conversation, ...]


def rows_of(run: Run) -> ProbeRows:
    """The first rows of the run's validation data, or of its training data; fixed questions where both are gone.

    A file that is not the one that the run read counts as gone, and `source` says so.
    """
    manifest = run.manifest()
    for file in (*manifest.files("validation"), *manifest.files("train")):
        path = Path(file.path)
        with suppress(DataError):
            if file.is_unchanged:
                return ProbeRows(path.name, tuple(read_conversations(path).conversations[:MAX_ROWS]))
    return ProbeRows("fixed questions, as the run's data is gone or has changed", tuple(_made_up(run)))


def _made_up(run: Run) -> Iterator[Conversation]:
    prompt = run.manifest().system_prompt
    head = (Message("system", prompt),) if prompt else ()
    for number, (question, answer) in enumerate(QUESTIONS, 1):
        yield Conversation((*head, Message("user", question), Message("assistant", answer)), (), "questions", number)


def probes_of(rows: ProbeRows, renderer: Renderer) -> list[Probe]:
    """One probe for each row that renders. Raises: ConfigError, when none does."""
    probes = []
    for conversation in rows.conversations:
        try:
            example = renderer.render(conversation)[0]
        except RenderingError:
            continue
        if positions := _positions(example):
            probes.append(Probe(conversation.place, example.input_ids[: positions[-1] + 1], positions))
    if not probes:
        raise ConfigError(f"{rows.source}: no row can be rendered; bring the run's data back")
    return probes


def _positions(example: Example) -> tuple[int, ...]:
    supervised = (at for at, label in enumerate(example.labels) if label != IGNORE_INDEX and at > 0)
    return tuple(at - 1 for _, at in zip(range(MAX_TOKENS), supervised, strict=False))


def request_of(conversation: Conversation, num_messages: int) -> dict[str, Any]:
    """The first messages of a row as a chat request, in the words of the chat API."""
    messages = [_as_sent(message) for message in conversation.messages[:num_messages]]
    request: dict[str, Any] = {"messages": messages}
    if conversation.tools:
        request["tools"] = json.loads(json.dumps(list(conversation.tools)))
    return request


def _as_sent(message: Message) -> dict[str, Any]:
    sent: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        sent["name"] = message.name
    if message.tool_call_id is not None:
        sent["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        sent["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return sent
