"""Tokens become text as they come: never half a character, nothing of a stop string, no control tokens."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from trainer.inference.thoughts import THINK, Thought, ThoughtMarkers, ThoughtSplitter
from trainer.inference.tool_calls import before_call, overlap

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextStream:
    """Thought and text of one answer. Of the text it holds back what may yet become a stop string.

    A stop string ends the answer, and never its thought. `opening` is how tool calls begin, as `CallForm` has it. All
    from there on is kept back, control tokens included, in `call_text`. `opened` says that the prompt ends in a
    thought.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        stops: Sequence[str] = (),
        opening: str | None = None,
        thoughts: ThoughtMarkers = THINK,
        opened: bool = False,
    ) -> None:
        from tokenizers.decoders import DecodeStream

        self.stops, self.opening = list(stops), opening
        self.stopped = False  # at one of the stop strings
        self.call_text = ""
        self.num_thought_tokens = 0  # what opens and closes thoughts included
        self._num_tokens = 0
        self._tokenizer = tokenizer.backend_tokenizer
        self._control = _control_tokens(tokenizer)
        self._splitter = ThoughtSplitter(thoughts, opened, self._control)
        self._decoder = DecodeStream([], skip_special_tokens=False)
        self._held = ""

    def feed(self, tokens: Iterable[int]) -> Iterator[Thought | str]:
        """Take more tokens; yield what can be shown now."""
        for token in tokens:
            thought = self._splitter.thinking
            piece = self._decoder.step(self._tokenizer, token) or ""
            parts = list(self._splitter.feed(piece))
            self._num_tokens += 1
            if thought or self._splitter.thinking:
                self.num_thought_tokens = self._num_tokens
            for part in parts:
                yield from self._take(part)

    def finish(self) -> Iterator[Thought | str]:
        """Yield what is held back, when no more tokens come."""
        for part in self._splitter.finish():
            yield from self._take(part)
        rest, self._held = self._held, ""
        if not self.stopped and (text := self.cleaned(rest)):
            yield text

    def _take(self, part: Thought | str) -> Iterator[Thought | str]:
        if isinstance(part, Thought):
            yield part
        elif self.call_text:
            self.call_text += part
        else:
            self._held += part
            if text := self._release():
                yield text

    def _release(self) -> str:
        if self.stopped:
            return ""
        call = len(self._held) if self.opening is None else before_call(self._held, self.opening)
        stop = min((at for end in self.stops if (at := self._held.find(end)) >= 0), default=None)
        if stop is not None and (stop < call or not self._is_call(call)):
            self.stopped = True
            return self._shown(stop, "")
        if self._is_call(call):
            self.call_text = self._held[call:]
            return self._shown(call, "")
        keep = max((overlap(self._held, end) for end in self.stops), default=0)
        until = min(call, len(self._held) - keep)
        return self._shown(until, self._held[until:])

    def _is_call(self, at: int) -> bool:
        """True if a call has begun there, and not only might."""
        if self.opening:
            return self._held.startswith(self.opening, at)
        return self.opening is not None and self._held[at:].lstrip() != ""

    def _shown(self, until: int, held: str) -> str:
        """The text that is held up to there, after which `held` is."""
        text, self._held = self._held[:until], held
        if text and not self.opening:
            self.opening = None  # a call would have been the whole answer
        return self.cleaned(text)

    def cleaned(self, text: str) -> str:
        """Without control tokens."""
        return self._control.sub("", text)


def _control_tokens(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str]:
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or "(?!)")
