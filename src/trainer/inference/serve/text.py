"""Tokens become text as they come: never half a character, nothing of a stop string, no control tokens."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextStream:
    """The text of one answer. It holds back what may yet become a stop string.

    `opening` is how a tool call begins. What follows it is kept back whole, control tokens included, in `call_text`.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", stops: Sequence[str] = (), opening: str | None = None
    ) -> None:
        from tokenizers.decoders import DecodeStream

        self.stops, self.opening = list(stops), opening
        self.stopped = False  # at one of the stop strings
        self.call_text = ""
        self._tokenizer = tokenizer.backend_tokenizer
        self._control = _control_tokens(tokenizer) if opening else None
        self._decoder = DecodeStream([], skip_special_tokens=opening is None)
        self._held = ""

    def feed(self, tokens: Iterable[int]) -> str:
        """What can be shown now."""
        pieces = (self._decoder.step(self._tokenizer, token) for token in tokens)
        new = "".join(piece for piece in pieces if piece)
        if self.call_text:
            self.call_text += new
            return ""
        self._held += new
        return self._release()

    def finish(self) -> str:
        """What was held back, when no more tokens come."""
        rest, self._held = self._held, ""
        return "" if self.stopped else self.cleaned(rest)

    def _release(self) -> str:
        if self.stopped:
            return ""
        ends = [*self.stops, self.opening] if self.opening else self.stops
        found = [(at, end) for end in ends if (at := self._held.find(end)) >= 0]
        if found:
            at, end = min(found)
            text, rest, self._held = self._held[:at], self._held[at:], ""
            if end == self.opening:
                self.call_text = rest
            else:
                self.stopped = True
            return self.cleaned(text)
        keep = max((_overlap(self._held, end) for end in ends), default=0)
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return self.cleaned(text)

    def cleaned(self, text: str) -> str:
        """Without control tokens."""
        return self._control.sub("", text) if self._control else text


def _overlap(text: str, end: str) -> int:
    """The length of the longest ending of `text` with which `end` begins."""
    lengths = range(min(len(text), len(end) - 1), 0, -1)
    return next((length for length in lengths if end.startswith(text[-length:])), 0)


def _control_tokens(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str]:
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or "(?!)")
