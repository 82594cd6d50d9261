"""Replies: a model's words without control tokens, its thought apart, and the tool calls in them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trainer.data.render.chat_template import ChatMessages, RenderingError, Tools
from trainer.data.render.rendering import Renderer
from trainer.inference.call_forms import call_form, generated_text
from trainer.inference.thought_markers import thought_markers
from trainer.inference.thoughts import Thought, ThoughtMarkers, ThoughtSplitter
from trainer.inference.tool_calls import Call, CallForm, before_call, typed


@dataclass(frozen=True, slots=True)
class Spoken:
    """A reply as a person, or a program that runs tools, would see it."""

    text: str
    calls: tuple[Call, ...] = ()
    thought: str = ""


class ReplyReader:
    """Reads replies in the form in which one model's chat template writes them."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer, self.template = renderer, renderer.template

    @cached_property
    def form(self) -> CallForm | None:
        """Form of the template's tool calls; None where text and calls look alike."""
        return call_form(self.template)

    @cached_property
    def thoughts(self) -> ThoughtMarkers:
        """Text that the template writes around thoughts."""
        return thought_markers(self.template)

    def decode(self, ids: Sequence[int]) -> str:
        """Every token as text, control tokens too."""
        return str(self.template.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def read(self, generated: str, prompt: str) -> Spoken:
        """`generated` is what `decode` gave, without the token that ends it; `prompt` is the text it followed."""
        control = self.template.control_token
        thought, answer = self.thoughts.split(generated, self.thoughts.opened_by(prompt), control)
        text, calls = self.form.read(answer) if self.form else (answer, [])
        return Spoken(control.sub("", text).strip(), tuple(calls), thought)

    def prompt(self, messages: ChatMessages, tools: Sequence[Mapping[str, Any]] | None) -> str:
        """The text that serving sends; empty where the template refuses the messages."""
        try:
            return self.renderer.prompt(messages, [dict(tool) for tool in tools or ()] or None).text
        except RenderingError:
            return ""

    def rendered(self, messages: ChatMessages, tools: Tools) -> str | None:
        """Text to generate for the last of `messages`; None where the template shows none."""
        try:
            return generated_text(self.template, [self.template.adapt(message) for message in messages], tools)
        except RenderingError:
            return None


def split_stream(
    pieces: Iterable[str], reader: ReplyReader, prompt: str, tools: Sequence[Mapping[str, Any]] | None
) -> Iterator[str | Thought | Call]:
    """Thoughts and text as they come, the text only when it cannot be the beginning of a call; then the calls.

    `pieces` hold control tokens. No calls are looked for where `tools` is None.
    """
    form = None if tools is None else reader.form
    splitter = ThoughtSplitter(reader.thoughts, reader.thoughts.opened_by(prompt), reader.template.control_token)
    text, shown = "", 0
    for part in _parts(pieces, splitter):
        if isinstance(part, Thought):
            yield part
            continue
        text += part
        safe = len(text) if form is None else max(shown, before_call(text, form.opening))
        yield from _visible(text[shown:safe], reader)
        shown = safe
    calls = form.read(_without_end(text, reader))[1] if form else []
    if not calls:
        yield from _visible(text[shown:], reader)
    for call in calls:
        yield typed(call, tools or ())


def _parts(pieces: Iterable[str], splitter: ThoughtSplitter) -> Iterator[Thought | str]:
    for piece in pieces:
        yield from splitter.feed(piece)
    yield from splitter.finish()


def _without_end(text: str, reader: ReplyReader) -> str:
    """The text without the control token that ends it."""
    tokens = list(reader.template.control_token.finditer(text))
    return text[: tokens[-1].start()] if tokens and not text[tokens[-1].end() :].strip() else text


def _visible(text: str, reader: ReplyReader) -> Iterator[str]:
    if visible := reader.template.control_token.sub("", text):
        yield visible
