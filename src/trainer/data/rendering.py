"""A Conversation becomes token ids and labels that are exactly what serving will see.

The mask is derived from the model's own chat template, never from a pattern of ours. For every trained answer the
template renders the conversation twice: up to the answer with the generation prompt (what serving sends), and with
the answer. The answer and its end-of-turn token are what the second has beyond the first. Each derivation is checked
on the row itself; a row for which it does not hold is refused with the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.data.answers import Answer, answer_of, difference
from trainer.data.chat_template import ChatMessages, ChatTemplate, Tools
from trainer.data.chat_template import RenderingError as RenderingError
from trainer.data.conversations import Conversation, Message
from trainer.data.kept_text import check_kept, left_out, texts_of, texts_of_tools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE_INDEX = -100  # torch's cross_entropy ignores this label


@dataclass(frozen=True, slots=True)
class Example:
    """A tokenised row. `labels` equals `input_ids` where supervised and is -100 elsewhere; both have length T."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def num_supervised(self) -> int:
        return sum(label != IGNORE_INDEX for label in self.labels)


class Renderer:
    """Renders conversations with one tokenizer and its chat template."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer)
        self._shapes_with_tools: set[object] = set()  # shapes of conversations of which nothing is left out
        self._complete_shapes: set[object] = set()
        self._clean_tools: object = ()  # those of the last row; most files repeat one list

    @property
    def end_markers(self) -> frozenset[int]:
        """Ids at which generation stops. Raises: RenderingError, when the template has none."""
        return self.template.end_markers

    def render(self, conversation: Conversation) -> list[Example]:
        """One example, or one for each trained answer where the template rewrites earlier turns.

        Reasoning models drop the thinking of earlier answers, gpt-oss ends them differently, and Mistral moves the
        system prompt to the last question: there no single rendering is what serving saw at every answer, so each
        trained answer is rendered with the history as serving would send it.

        Raises: RenderingError.
        """
        self._refuse_control_tokens(conversation)
        messages = [self.template.adapt(as_object(message)) for message in conversation.messages]
        tools = [dict(tool) for tool in conversation.tools] or None
        trained = [index for index, message in enumerate(conversation.messages) if message.trained]
        if not trained:
            raise RenderingError("no message is trained, expected an assistant message of weight 1; add one")
        self._check_tools(messages[: trained[0] + 1], tools)
        answers = [answer_of(self.template, messages[: index + 1], tools) for index in trained]
        ends_trained = trained[-1] == len(messages) - 1
        whole = answers[-1].text if ends_trained else self.template.text(messages, tools)
        if all(whole.startswith(answer.text[: answer.end]) for answer in answers):
            self._check_texts(messages, tools, whole, ends_trained)
            if example := self._example(whole, answers):
                return [example]
        for answer in answers:
            self._check_texts(messages[: answer.index + 1], tools, answer.text, ends_trained=True)
        return [self._example(answer.text, [answer]) or self._example_in_two(answer) for answer in answers]

    def prompt_ids(self, messages: ChatMessages, tools: Tools = None) -> list[int]:
        """What serving sends to the model: the messages and the generation prompt."""
        return self.template.encode([self.template.adapt(message) for message in messages], tools, prompt=True).ids

    def _refuse_control_tokens(self, conversation: Conversation) -> None:
        """Text that spells a control token would be read as one, and could end a turn early."""
        texts = list(texts_of(conversation))
        if conversation.tools is not self._clean_tools:
            texts += texts_of_tools(conversation)
        for place, text in texts:
            if token := self.template.control_token_in(text):
                raise RenderingError(f"{place} holds {token!r}, a control token of this model; remove or respell it")
        self._clean_tools = conversation.tools

    # Tokens and labels

    def _example(self, text: str, answers: Sequence[Answer]) -> Example | None:
        """A rendering that holds all `answers`, None where its tokens do not begin with those that serving sends."""
        row = self.template.tokenise(text)
        labels = [IGNORE_INDEX] * len(row.ids)
        for answer in answers:
            begin = self.template.num_prompt_tokens(row, answer.prompt)
            if begin is None:
                return None
            end = row.ids.index(answer.marker, begin) + 1
            self.template.check_known(row, begin, end)
            labels[begin:end] = row.ids[begin:end]
        return Example(tuple(row.ids), tuple(labels))

    def _example_in_two(self, answer: Answer) -> Example:
        """Prompt and answer tokenised apart, as serving does, where it is the template that makes their tokens one.

        Qwen 3.5's prompt ends with <think> and a line break, and its template goes on with another one. What an
        author writes there is refused, since it can be written differently. Raises: RenderingError.
        """
        marker = self.template.spelled(answer.marker)
        rest = self.template.tokenise(marker + answer.text[len(answer.prompt) :])
        if not answer.begun or rest.offsets[0] != (0, len(marker)):
            raise RenderingError(f"messages[{answer.index}]: {difference(self.template, answer.prompt, answer.text)}")
        prompt, tail = self.template.tokenise(answer.prompt).ids, rest.ids[1:]
        end = tail.index(answer.marker) + 1
        labels = [IGNORE_INDEX] * len(prompt) + tail[:end] + [IGNORE_INDEX] * (len(tail) - end)
        return Example((*prompt, *tail), tuple(labels))

    # What the template leaves out: only the shape of a conversation matters, so that each shape is rendered once

    def _check_tools(self, messages: ChatMessages, tools: Tools) -> None:
        shape = _shape(messages)
        if tools and shape not in self._shapes_with_tools:
            if self.template.text(messages, tools) == self.template.text(messages):
                raise RenderingError("the tools are left out by this model's chat template; choose another base")
            self._shapes_with_tools.add(shape)

    def _check_texts(self, messages: ChatMessages, tools: Tools, text: str, ends_trained: bool) -> None:
        """All texts must stand in the rendering `text`, and so must texts that occur nowhere else in their place.

        Raises: RenderingError.
        """
        check_kept(messages, tools, text)
        shape = (_shape(messages), bool(tools), ends_trained)
        if shape in self._complete_shapes:
            return
        before = [{**m, "content": f"probe-{i}-text"} if m["content"] else m for i, m in enumerate(messages[:-1])]
        marked = [*before, messages[-1]]
        text = answer_of(self.template, marked, tools).text if ends_trained else self.template.text(marked, tools)
        for index, message in enumerate(before):
            if message["content"] and not message.get("tool_calls") and f"probe-{index}-text" not in text:
                raise RenderingError(left_out(index, str(message["role"])))
        self._complete_shapes.add(shape)


def _shape(messages: ChatMessages) -> tuple[tuple[str, bool, int], ...]:
    return tuple((m["role"], bool(m["content"]), len(m.get("tool_calls", ()))) for m in messages)


def as_object(message: Message) -> dict[str, Any]:
    """The message as it stands in a request to a chat service."""
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls
    ]
    return {
        "role": message.role,
        "content": message.content,
        "name": message.name,
        "tool_calls": calls or None,
        "tool_call_id": message.tool_call_id,
    }
