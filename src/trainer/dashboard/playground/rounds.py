"""One question to two models, whose answers come side by side; which is which may stay hidden until a vote."""

import asyncio
import json
import random
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

from trainer.backends.http import hurried
from trainer.inference.client import ChatClient, ChatMessage, Sampling, Tool
from trainer.inference.thoughts import Thought
from trainer.web.mistakes import told

Which = Literal["tuned", "base"]
KEPT_ROUNDS = 200
ID_BYTES = 8


def is_id(text: str) -> bool:
    """True of what may be a question's id, of this server or of one before it."""
    return re.fullmatch(rf"[0-9a-f]{{{2 * ID_BYTES}}}", text) is not None


@dataclass
class Side:
    """One of the answers: the model behind it, and the text so far."""

    which: Which
    client: ChatClient
    text: str = ""
    thought: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""
    words: str = ""  # on how it came or ended
    is_open: bool = True  # until it has ended, in whatever way
    ended: bool = False  # whole

    def close(self, words: str) -> None:
        """End an answer that has not ended yet."""
        if self.is_open:
            self.is_open, self.words = False, words

    @property
    def said(self) -> str:
        """The answer as one text, calls included."""
        return "\n".join(
            filter(None, [self.text.strip(), *(f"{call['name']}({call['arguments']})" for call in self.calls)])
        )


@dataclass
class Round:
    """A question and its answers, by the letters that a page calls them."""

    run: str
    messages: Sequence[ChatMessage]
    sampling: Sampling
    tools: Sequence[Tool]
    sides: dict[str, Side]
    is_blind: bool
    id: str = field(default_factory=lambda: secrets.token_hex(ID_BYTES))
    stopped: threading.Event = field(default_factory=threading.Event)
    has_begun: bool = False
    has_vote: bool = False
    _wake: Callable[[], None] = lambda: None

    @property
    def is_hidden(self) -> bool:
        """True while nobody may know which answer is whose."""
        return self.is_blind and not self.has_vote

    @property
    def said(self) -> list[ChatMessage]:
        """The conversation below the system message."""
        return [message for message in self.messages if message["role"] != "system"]

    @property
    def names(self) -> dict[str, str]:
        """The model of each letter."""
        return {letter: side.which for letter, side in self.sides.items()}

    @property
    def both_answered(self) -> bool:
        return len(self.sides) == 2 and all(side.ended for side in self.sides.values())

    def answer_of(self, which: Which) -> str:
        """The whole answer of a model."""
        return next(side.said for side in self.sides.values() if side.which == which)

    @property
    def system(self) -> str:
        first = self.messages[0]
        return str(first["content"]) if first["role"] == "system" else ""

    @property
    def question(self) -> str:
        """The conversation below the system message, in one text."""
        return str(self.said[0]["content"]) if len(self.said) == 1 else json.dumps(self.said, ensure_ascii=False)

    async def events(self) -> AsyncGenerator[dict[str, Any]]:
        """Both answers piece by piece, at the end of each its letter alone; whoever stops reading stops the models."""
        self.has_begun = True
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None]()

        def put(event: dict[str, Any] | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(queue.put_nowait, event)

        self._wake = lambda: put(None)
        for letter, side in self.sides.items():
            threading.Thread(target=self._answer, args=(letter, side, put), daemon=True).start()
        answering = set(self.sides)
        try:
            while answering and not self.stopped.is_set():
                if (event := await queue.get()) is not None:
                    answering -= {event["side"]} if len(event) == 1 else set()
                    yield event
        finally:
            self.stop()

    def stop(self, words: str = "stopped") -> None:
        """End the answers that are still open; their models stop at the next word."""
        self.stopped.set()
        for side in self.sides.values():
            side.close(words)
        self._wake()

    def _answer(self, letter: str, side: Side, put: Any) -> None:
        begun, first = time.monotonic(), 0.0
        try:
            with hurried(), closing(side.client.stream(self.messages, self.sampling, self.tools)) as pieces:  # type: ignore[type-var]
                for piece in pieces:
                    first = first or time.monotonic() - begun
                    if self.stopped.is_set():
                        return
                    if isinstance(piece, str):
                        side.text += piece
                        put({"side": letter, "text": piece})
                    elif isinstance(piece, Thought):
                        side.thought += piece.text
                        put({"side": letter, "thought": piece.text})
                    else:
                        arguments = json.dumps(piece.arguments, ensure_ascii=False)
                        side.calls.append({"name": piece.name, "arguments": arguments})
                        put({"side": letter, "call": side.calls[-1]})
            side.ended = not self.stopped.is_set()
            side.close(f"{time.monotonic() - begun:.1f} s, first word after {first:.1f} s")
        except Exception as error:  # of any kind: the page waits for the answer's end
            if not self.stopped.is_set():
                side.problem = told(error, "answering")
                side.close("no answer")
        finally:
            put({"side": letter})


class Rounds:
    """The questions asked last, by their ids."""

    def __init__(self) -> None:
        self._rounds: OrderedDict[str, Round] = OrderedDict()
        self._lock = threading.Lock()

    def begin(
        self,
        run: str,
        clients: Sequence[tuple[Which, ChatClient]],
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        tools: Sequence[Tool],
        is_blind: bool,
    ) -> Round:
        """A question to one or two models; hidden ones stand in a random order."""
        ordered = list(clients)
        if is_blind:
            random.SystemRandom().shuffle(ordered)
        sides = {letter: Side(*client) for letter, client in zip("ab", ordered, strict=False)}
        made = Round(run, messages, sampling, tools, sides, is_blind)
        with self._lock:
            self._rounds[made.id] = made
            while len(self._rounds) > KEPT_ROUNDS:
                self._rounds.popitem(last=False)
        return made

    def find(self, run: str, round_id: str) -> Round | None:
        found = self._rounds.get(round_id)
        return found if found is not None and found.run == run else None
