"""Tokens become text as they come: never half a character, nothing of a stop string, no control tokens."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from trainer.inference.tool_calls import before_call, overlap

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextStream:
    """The text of one answer. It holds back what may yet become a stop string.

    `opening` is how tool calls begin, as `CallForm` has it. All from there on is kept back, control tokens included, in
    `call_text`.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", stops: Sequence[str] = (), opening: str | None = None
    ) -> None:
        from tokenizers.decoders import DecodeStream

        self.stops, self.opening = list(stops), opening
        self.stopped = False  # at one of the stop strings
        self.call_text = ""
        self._tokenizer = tokenizer.backend_tokenizer
        self._control = None if opening is None else _control_tokens(tokenizer)
        self._decoder = DecodeStream([], skip_special_tokens=opening is None)
        self._held = ""

    def feed(self, tokens: Iterable[int]) -> str:
        """Take more tokens; return the text that can be shown now."""
        pieces = (self._decoder.step(self._tokenizer, token) for token in tokens)
        new = "".join(piece for piece in pieces if piece)
        if self.call_text:
            self.call_text += new
            return ""
        self._held += new
        return self._release()

    def finish(self) -> str:
        """Return the text held back, when no more tokens come."""
        rest, self._held = self._held, ""
        return "" if self.stopped else self.cleaned(rest)

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
        return self._control.sub("", text) if self._control else text


def _control_tokens(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str]:
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or "(?!)")
