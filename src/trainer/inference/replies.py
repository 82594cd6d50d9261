"""Replies: a model's words without thinking and control tokens, and the tool calls in them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trainer.data.render.chat_template import PROBE, ChatMessages, RenderingError, Tools
from trainer.data.render.rendering import Renderer
from trainer.inference.call_forms import call_form, generated_text
from trainer.inference.tool_calls import Call, CallForm, before_call, typed, without_thinking

THINKING_BEGINS, THINKING_ENDS = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Spoken:
    """A reply as a person, or a program that runs tools, would see it."""

    text: str
    calls: tuple[Call, ...] = ()


class ReplyReader:
    """Reads replies in the form in which one model's chat template writes them."""

    def __init__(self, renderer: Renderer) -> None:
        self.template = renderer.template

    @cached_property
    def form(self) -> CallForm | None:
        """Form of the template's tool calls; None where text and calls look alike."""
        return call_form(self.template)

    def decode(self, ids: Sequence[int]) -> str:
        """Every token as text, control tokens too."""
        return str(self.template.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def read(self, generated: str, prompt: str) -> Spoken:
        """`generated` is what `decode` gave, without the token that ends it; `prompt` is the text it followed."""
        thinks = THINKING_BEGINS in generated or prompt.rstrip().endswith(THINKING_BEGINS)
        if thinks and THINKING_ENDS not in generated:
            return Spoken("")  # cut off before it came to an answer
        text, calls = self.form.read(generated) if self.form else (without_thinking(generated), [])
        if self._opening and self._opening in text:
            text = text.rpartition(self._opening)[2]
        return Spoken(self.template.control_token.sub("", text).strip(), tuple(calls))

    def rendered(self, messages: ChatMessages, tools: Tools) -> str | None:
        """Text to generate for the last of `messages`; None where the template shows none."""
        try:
            return generated_text(self.template, [self.template.adapt(message) for message in messages], tools)
        except RenderingError:
            return None

    @cached_property
    def _opening(self) -> str:
        """Text of the template between prompt and answer: gpt-oss names a channel, most write nothing."""
        question: dict[str, Any] = {"role": "user", "content": "probe question"}
        try:
            answer = generated_text(self.template, [question, {"role": "assistant", "content": PROBE}], None)
        except RenderingError:  # DeepSeek-R1's prompt holds how an answer begins, and its renderings do not
            return ""
        return without_thinking(answer.partition(PROBE)[0]).strip()


def split_stream(
    pieces: Iterable[str], reader: ReplyReader, prompt: str, tools: Sequence[Mapping[str, Any]]
) -> Iterator[str | Call]:
    """Text as soon as it cannot be the beginning of a call; then the calls. `pieces` hold control tokens."""
    opening = reader.form.opening if reader.form else None
    text, shown = "", 0
    for piece in pieces:
        text += piece
        safe = max(shown, len(text) if opening is None else before_call(text, opening))
        yield from _visible(text[shown:safe], reader)
        shown = safe
    calls = reader.read(_without_end(text, reader), prompt).calls
    if not calls:
        yield from _visible(text[shown:], reader)
    for call in calls:
        yield typed(call, tools)


def _without_end(text: str, reader: ReplyReader) -> str:
    """The text without the control token that ends it."""
    tokens = list(reader.template.control_token.finditer(text))
    return text[: tokens[-1].start()] if tokens and not text[tokens[-1].end() :].strip() else text


def _visible(text: str, reader: ReplyReader) -> Iterator[str]:
    if visible := reader.template.control_token.sub("", text):
        yield visible
