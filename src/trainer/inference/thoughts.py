"""Thoughts in a model's own text, between the markers of its chat template (`thought_markers.py`).

One splitter reads them for all: text goes in as it comes, and thought and answer come out apart, wherever it was cut.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from trainer.inference.tool_calls import overlap

NOTHING = re.compile("(?!)")


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of a thought."""

    text: str


@dataclass(frozen=True, slots=True)
class ThoughtMarkers:
    """Text that one chat template writes around thoughts; no marker has white space at its ends.

    `answer` is what stands before an answer: gpt-oss names a channel, most write nothing.
    """

    opening: str = "<think>"
    closing: str = "</think>"
    answer: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The markers that `as_json` gave."""
        return cls(**value)

    def as_json(self) -> dict[str, Any]:
        """For another process."""
        return asdict(self)

    def opened_by(self, prompt: str) -> bool:
        """True if the prompt ends within a thought, so that what is generated begins there."""
        return prompt.rstrip().endswith(self.opening)

    def split(self, text: str, opened: bool = False, control: re.Pattern[str] = NOTHING) -> tuple[str, str]:
        """The thought and the answer of a whole text."""
        splitter = ThoughtSplitter(self, opened, control)
        pieces = [*splitter.feed(text), *splitter.finish()]
        thought = "".join(piece.text for piece in pieces if isinstance(piece, Thought))
        return thought, "".join(piece for piece in pieces if isinstance(piece, str))


THINK = ThoughtMarkers()  # of people who write thoughts into a text, and of templates that show none of their own


def parted(text: str) -> tuple[str, str]:
    """Thought and answer of a text that a person wrote, whose thought may have begun in the prompt."""
    opened = THINK.closing in text and THINK.opening not in text.partition(THINK.closing)[0]
    return THINK.split(text, opened)


class ThoughtSplitter:
    """Takes the text of an answer piece by piece, and gives thought and answer back.

    White space around a thought and `control` tokens in it are left out. An answer keeps its control tokens, as calls
    may begin with them. A thought that does not end is all thought.
    """

    def __init__(self, markers: ThoughtMarkers, opened: bool, control: re.Pattern[str] = NOTHING) -> None:
        self.markers, self.control = markers, control
        self._state: Literal["begin", "thought", "behind", "answer"] = "thought" if opened else "begin"
        self._held = ""
        self._num_shown = 0  # pieces of thoughts
        self._joint: str | None = None  # what parts the next piece from an earlier thought; None within one

    @property
    def thinking(self) -> bool:
        """True within a thought, up to the end of what closes it."""
        return self._state == "thought"

    def feed(self, text: str) -> Iterator[Thought | str]:
        """Take more text; yield what can be told apart by now."""
        self._held += text
        state = None
        while state != self._state:
            state = self._state
            yield from self._step()

    def finish(self) -> Iterator[Thought | str]:
        """Yield what is held, when no more text comes."""
        held, self._held = self._held, ""
        if self.thinking:
            yield from self._shown(held)
        elif self._state == "begin" and held and not self._within_marker(held):
            yield held.lstrip() if self._num_shown else held

    def _step(self) -> Iterator[Thought | str]:
        match self._state:
            case "begin":
                yield from self._begin()
            case "thought":
                yield from self._think()
            case "behind":
                self._held = self._held.lstrip()
                self._state = "answer" if self._held else "behind"
            case "answer":
                held, self._held = self._held, ""
                yield from [held] if held else []

    def _begin(self) -> Iterator[Thought]:
        """Before the answer. Where the template names it, all that stands before its name is thought."""
        text, markers = self._held.lstrip(), self.markers
        if text.startswith(markers.opening):
            self._held, self._state, self._joint = text[len(markers.opening) :], "thought", "\n"
        elif markers.answer and (at := text.find(markers.answer)) >= 0:
            self._held, self._state, self._joint = text[at + len(markers.answer) :], "behind", "\n"
            yield from self._shown(text[:at])
        elif not markers.answer and not markers.opening.startswith(text):
            self._state = "answer"

    def _think(self) -> Iterator[Thought]:
        text, closing = self._held, self.markers.closing
        if (at := text.find(closing)) >= 0:
            self._held, self._state = text[at + len(closing) :], "begin" if self.markers.answer else "behind"
            yield from self._shown(text[:at])
            return
        until = len(text) - overlap(text, closing)
        sure = self.control.sub("", text[:until])
        self._held = sure[len(sure.rstrip()) :] + text[until:]  # white space may turn out to be the thought's end
        yield from self._shown(sure)

    def _shown(self, text: str) -> Iterator[Thought]:
        text = self.control.sub("", text).rstrip()
        if self._joint is not None or not self._num_shown:
            text = text.lstrip()
        if text:
            joint = self._joint if self._joint and self._num_shown else ""
            self._num_shown, self._joint = self._num_shown + 1, None
            yield Thought(joint + text)

    def _within_marker(self, text: str) -> bool:
        """True if the text was cut off within the name of a thought or an answer."""
        markers = (self.markers.opening, self.markers.answer)
        return self.control.search(text) is not None and any(marker.startswith(text.strip()) for marker in markers)
