"""A Conversation becomes token ids and labels that are exactly what serving will see.

The mask is derived from the model's own chat template, never from a pattern of ours. For every trained answer the
template renders the conversation twice: up to the answer with the generation prompt (what serving sends), and with
the answer. The answer and its end-of-turn token are what the second has beyond the first. Each derivation is checked
on the row itself; a row for which it does not hold is refused with the reason.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from trainer.data.conversations import Conversation, Message, in_pair
from trainer.data.render.answers import RenderedAnswer, answer_in, answer_of, difference
from trainer.data.render.chat_template import ChatMessages, ChatTemplate, Rendered, Tools
from trainer.data.render.chat_template import RenderingError as RenderingError
from trainer.data.render.kept_text import check_kept, left_out, probe_text, probes_in, texts_of, texts_of_tools
from trainer.data.render.turns import TurnFinder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE_INDEX = -100  # torch's cross_entropy ignores this label
MANY_ANSWERS = 8  # of one row: from here on it pays to look for them in one rendering
MAX_CHARACTERS = 100_000_000  # to render for one row, answer by answer


@dataclass(frozen=True, slots=True)
class Example:
    """A tokenised row. `labels` equals `input_ids` where supervised and is -100 elsewhere; both have length T."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def num_supervised(self) -> int:
        return sum(label != IGNORE_INDEX for label in self.labels)


class Renderer:
    """Renders conversations with one tokenizer and its chat template, which `thinks` or not as the rows do."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", train_reasoning: bool = True, thinks: bool | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.train_reasoning = train_reasoning  # whether the thought before a trained answer is supervised
        self.template = ChatTemplate(tokenizer, thinks)
        self._shapes_with_tools: set[object] = set()  # shapes of conversations of which nothing is left out
        self._complete_shapes: set[object] = set()
        self._clean_tools: object = ()  # those of the last row; most files repeat one list

    def training(self, thoughts: bool) -> "Renderer":
        """The same renderer with thoughts supervised, or not."""
        other = copy(self)
        other.train_reasoning = thoughts
        return other

    @property
    def end_markers(self) -> frozenset[int]:
        """Ids at which generation stops. Raises: RenderingError, when the template has none."""
        return self.template.end_markers

    def render(self, conversation: Conversation) -> list[Example]:
        """One example, or one for each trained answer where the template rewrites earlier turns.

        Reasoning models drop the thinking of earlier answers, gpt-oss ends them differently, and Mistral moves the
        system prompt to the last question: there no single rendering is what serving saw at every answer, so each
        trained answer is rendered with the history as serving would send it.

        Of a preference row the examples are two: the prompt with the preferred answer, and with the other one.

        Raises: RenderingError.
        """
        return self._render_pair(conversation) if conversation.non_preferred else self._render_chat(conversation)

    def _render_pair(self, row: Conversation) -> list[Example]:
        examples: list[Example] = []
        for branch, answer in zip(row.branches, ("preferred_output", "non_preferred_output"), strict=True):
            asked, said = branch.messages[: row.num_prompt], branch.messages[row.num_prompt :]
            answered = replace(branch, messages=(*asked, *(replace(message, weight=1) for message in said)))
            try:
                made = self._render_chat(answered)
            except RenderingError as error:
                raise RenderingError(in_pair(str(error), row.num_prompt, answer)) from None
            if len(made) > 1:
                raise RenderingError(
                    f"{answer} holds {len(said)} messages, and this model's chat template rewrites the earlier ones, "
                    "expected one message; move what leads to the answer into input.messages"
                )
            examples += made
        if examples[0] == examples[1]:
            raise RenderingError(
                "both answers are the same in this model's chat template, expected two; change one or remove the row"
            )
        return examples

    def _render_chat(self, conversation: Conversation) -> list[Example]:
        self._refuse_control_tokens(conversation)
        self._refuse_lost_thoughts(conversation)
        messages = [self.template.adapt(as_object(message)) for message in conversation.messages]
        tools = [dict(tool) for tool in conversation.tools] or None
        trained = [index for index, message in enumerate(conversation.messages) if message.trained]
        if not trained:
            raise RenderingError("no message is trained, expected an assistant message of weight 1; add one")
        self._check_tools(messages[: trained[0] + 1], tools)
        answers = self._answers(messages, tools, trained)
        ends_trained = trained[-1] == len(messages) - 1
        whole = answers[-1].text if ends_trained else self.template.text(messages, tools)
        if all(answer.text is whole or whole.startswith(answer.text[: answer.end]) for answer in answers):
            self._check_texts(messages, tools, whole, ends_trained)
            example, apart = self._example(whole, answers)
            return [*([example] if len(apart) < len(answers) else []), *map(self._example_in_two, apart)]
        for answer in answers:
            self._check_texts(messages[: answer.index + 1], tools, answer.text, ends_trained=True)
        return [self._example_alone(answer) for answer in answers]

    def num_tokens_beyond(self, conversation: Conversation, max_length: int) -> int | None:
        """Tokens up to the last trained answer of a row with many, where those are more than `max_length`.

        So a row that will not fit is known before each of its answers is looked at. Raises: RenderingError.
        """
        trained = [index for index, message in enumerate(conversation.messages) if message.trained]
        if len(trained) < MANY_ANSWERS:
            return None
        messages = [self.template.adapt(as_object(message)) for message in conversation.messages[: trained[-1] + 1]]
        text = answer_of(self.template, messages, [dict(tool) for tool in conversation.tools] or None).text
        num_tokens = len(self.template.tokenise(text).ids) if len(text.encode()) > max_length else 0
        return num_tokens if num_tokens > max_length else None

    def _answers(self, messages: list[dict[str, Any]], tools: Tools, trained: Sequence[int]) -> list[RenderedAnswer]:
        """All trained answers, from one rendering where that shows them. Raises: RenderingError."""
        answers: dict[int, RenderedAnswer] = {}
        if len(trained) >= MANY_ANSWERS:
            whole = self.template.text(messages, tools)
            answers = self._answers_in_one(messages, tools, trained, whole)
            num_characters = (len(trained) - len(answers)) * len(whole)
            if num_characters > MAX_CHARACTERS:
                raise RenderingError(
                    f"{len(trained):,} answers are trained, and this model's chat template may write the history of "
                    f"each anew: {num_characters:,} characters to render, expected at most {MAX_CHARACTERS:,}; "
                    "split the row, or give its earlier answers weight 0"
                )
        for index in trained:
            if index not in answers:
                answers[index] = answer_of(self.template, messages[: index + 1], tools)
        return [answers[index] for index in trained]

    def _answers_in_one(
        self, messages: list[dict[str, Any]], tools: Tools, trained: Sequence[int], whole: str
    ) -> dict[int, RenderedAnswer]:
        found = TurnFinder(self.tokenizer).find(messages, tools)
        if found is None or found[0].text != whole:
            return {}
        answers = {index: answer_in(self.template, messages[index], index, *found) for index in trained}
        return {index: answer for index, answer in answers.items() if answer is not None}

    def prompt_ids(self, messages: ChatMessages, tools: Tools = None) -> list[int]:
        """Tokens that serving sends to the model: the messages and the generation prompt."""
        return self.prompt(messages, tools).ids

    def prompt(self, messages: ChatMessages, tools: Tools = None) -> Rendered:
        """Prompt that serving sends to the model, as text and tokens. Raises: RenderingError.

        A template that knows of no thoughts gets those of earlier answers as people write them into texts.
        """
        said = messages if self.template.names_thoughts else [_in_text(message) for message in messages]
        return self.template.encode([self.template.adapt(message) for message in said], tools, prompt=True)

    def _refuse_control_tokens(self, conversation: Conversation) -> None:
        """Text that spells a control token would be read as one, and could end a turn early."""
        texts = list(texts_of(conversation))
        if conversation.tools is not self._clean_tools:
            texts += texts_of_tools(conversation)
        for place, text in texts:
            if token := self.template.control_token_in(text):
                raise RenderingError(f"{place} holds {token!r}, a control token of this model; remove or respell it")
        self._clean_tools = conversation.tools

    def _refuse_lost_thoughts(self, conversation: Conversation) -> None:
        """A template without a place for thoughts would leave them out without a word."""
        for index, message in enumerate(conversation.messages):
            if message.reasoning_content and self.template.thoughts is None:
                raise RenderingError(
                    f"messages[{index}].reasoning_content has no place in this model's chat template, expected none; "
                    "choose a base that thinks, or write the thought as <think>...</think> into content"
                )

    # Tokens and labels

    def _example(self, text: str, answers: Sequence[RenderedAnswer]) -> tuple[Example, list[RenderedAnswer]]:
        """A rendering that holds all `answers`, and those before which its tokens are not those that serving sends."""
        row = self.template.tokenise(text)
        labels = [IGNORE_INDEX] * len(row.ids)
        apart: list[RenderedAnswer] = []
        for answer in answers:
            begin = self.template.num_prompt_tokens(row, answer.begin)
            if begin is None:
                apart.append(answer)
                continue
            end = row.ids.index(answer.marker, begin) + 1
            self.template.check_known(row, begin, end)
            if not self._trains_whole(answer):
                begin = bisect_right(row.offsets, answer.said, lo=begin, hi=end, key=itemgetter(1))
            labels[begin:end] = row.ids[begin:end]
        return Example(tuple(row.ids), tuple(labels)), apart

    def _example_alone(self, answer: RenderedAnswer) -> Example:
        example, apart = self._example(answer.text, [answer])
        return self._example_in_two(answer) if apart else example

    def _example_in_two(self, answer: RenderedAnswer) -> Example:
        """Prompt and answer tokenised apart, as serving does, where the tokenizer would make their tokens one.

        Qwen 3.5's prompt ends with <think> and a line break, and its template continues with another one; an answer of
        an author may begin with spaces or a line break. The history of a later answer is text again.

        Raises: RenderingError.
        """
        prompt, text = self.template.tokenise(answer.prompt).ids, answer.text[: answer.end]
        tail = self.template.continuation(prompt, text, answer.begin)
        if tail is None:
            raise RenderingError(f"messages[{answer.index}]: {difference(self.template, answer.prompt, answer.text)}")
        ids, ends = tail
        first = 0 if self._trains_whole(answer) else bisect_right(ends, answer.said)
        return Example((*prompt, *ids), (*[IGNORE_INDEX] * (len(prompt) + first), *ids[first:]))

    def _trains_whole(self, answer: RenderedAnswer) -> bool:
        return self.train_reasoning or answer.said == answer.begin

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
        before = [{**m, "content": probe_text(i)} if m["content"] else m for i, m in enumerate(messages[:-1])]
        marked = [*before, messages[-1]]
        text = answer_of(self.template, marked, tools).text if ends_trained else self.template.text(marked, tools)
        kept = probes_in(text)
        for index, message in enumerate(before):
            if message["content"] and not message.get("tool_calls") and probe_text(index) not in kept:
                raise RenderingError(left_out(index, str(message["role"])))
        self._complete_shapes.add(shape)


def _in_text(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message with its thought in its text."""
    if not (thought := message.get("reasoning_content")):
        return message
    text = f"<think>\n{thought}\n</think>\n\n{message.get('content') or ''}"
    return {key: value for key, value in message.items() if key != "reasoning_content"} | {"content": text}


def _shape(messages: ChatMessages) -> tuple[tuple[str, bool, bool, int], ...]:
    return tuple(
        (m["role"], bool(m["content"]), "reasoning_content" in m, len(m.get("tool_calls", ()))) for m in messages
    )


def as_object(message: Message) -> dict[str, Any]:
    """The message as it stands in a request to a chat service."""
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls
    ]
    return {
        "role": message.role,
        "content": message.content,
        "reasoning_content": message.reasoning_content,
        "name": message.name,
        "tool_calls": calls or None,
        "tool_call_id": message.tool_call_id,
    }
