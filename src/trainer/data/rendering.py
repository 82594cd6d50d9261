"""A Conversation becomes token ids and labels that are exactly what serving will see.

The mask is derived from the model's own chat template, never from a pattern of ours. For every trained answer the
template renders the conversation twice: up to the answer with the generation prompt (what serving sends), and with
the answer. The answer and its end-of-turn token are what the second has beyond the first. Each derivation is checked
on the row itself; a row for which it does not hold is refused with the reason.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from trainer.data.chat_template import ChatMessages, ChatTemplate, Rendered, Tools, left_out
from trainer.data.chat_template import RenderingError as RenderingError
from trainer.data.conversations import Conversation, Message
from trainer.errors import quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE_INDEX = -100  # torch's cross_entropy ignores this label
MAX_OPENING_CHARS = 100  # of an answer that a prompt can hold: <think> and a line break, in the models there are
SHOWN_TOKENS = 8  # on each side of a difference


@dataclass(frozen=True, slots=True)
class Example:
    """A tokenised row. `labels` equals `input_ids` where supervised and is -100 elsewhere; both have length T."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def num_supervised(self) -> int:
        return sum(label != IGNORE_INDEX for label in self.labels)


@dataclass(frozen=True, slots=True)
class _Answer:
    """The rendering that ends with an answer, and the answer's first and last-plus-one token, end marker included."""

    row: Rendered
    begin: int
    end: int


class Renderer:
    """Renders conversations with one tokenizer and its chat template."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer)

    @property
    def end_markers(self) -> frozenset[int]:
        """Ids at which generation stops. Raises: RenderingError, when the template has none."""
        return self.template.end_markers

    def render(self, conversation: Conversation) -> list[Example]:
        """One example, or one for each trained answer where the template rewrites earlier turns.

        Reasoning models drop the thinking of earlier answers, and gpt-oss ends them differently: there no single
        rendering is what serving saw at every answer, so each trained answer is rendered with the history as serving
        would send it.

        Raises: RenderingError.
        """
        self._refuse_control_tokens(conversation)
        messages = [self.template.adapt(as_object(message)) for message in conversation.messages]
        tools = [dict(tool) for tool in conversation.tools] or None
        answers = [
            self._answer(messages[: index + 1], tools)
            for index, message in enumerate(conversation.messages)
            if message.trained
        ]
        whole = self.template.encode(messages, tools)
        self._check_nothing_dropped(messages, tools, whole.text)
        if all(whole.ids[: answer.end] == answer.row.ids[: answer.end] for answer in answers):
            return [_example(whole, answers)]
        return [_example(answer.row, [answer]) for answer in answers]

    def prompt_ids(self, messages: ChatMessages, tools: Tools = None) -> list[int]:
        """What serving sends to the model: the messages and the generation prompt."""
        return self.template.encode([self.template.adapt(message) for message in messages], tools, prompt=True).ids

    def _refuse_control_tokens(self, conversation: Conversation) -> None:
        """Text that spells a control token would be read as one, and could end a turn early."""
        for place, text in _texts(conversation):
            if token := self.template.control_token.search(text):
                raise RenderingError(
                    f"{place} holds {token.group()!r}, a control token of this model; remove or respell it"
                )

    def _check_nothing_dropped(self, messages: ChatMessages, tools: Tools, text: str) -> None:
        """System, user and tool texts and the tools must stand in the rendering; answers are checked by their spans."""
        self.template.check_complete(messages, tools)
        for index, message in enumerate(messages):
            if message["role"] != "assistant" and not _stands_in(message["content"], text):
                raise RenderingError(left_out(index, str(message["role"])))
        for tool in tools or ():
            if tool["function"]["name"] not in text:
                raise RenderingError(f"the tool {tool['function']['name']!r} is left out by this model's chat template")

    def _answer(self, messages: ChatMessages, tools: Tools) -> _Answer:
        """Where the last of `messages` stands in its rendering."""
        index = len(messages) - 1
        row = self.template.encode(messages, tools)
        self._check_nothing_dropped(messages, tools, row.text)
        prompt = self.template.encode(messages[:-1], tools, prompt=True)
        begin = len(prompt.ids)
        if row.ids[:begin] != prompt.ids:
            row = self._opened_by_prompt(row, prompt, messages[-1]) or row
        if row.ids[:begin] != prompt.ids:
            raise RenderingError(f"messages[{index}]: {self._difference(row, prompt)}")
        marker = self.template.end_marker(messages[-1])
        if marker not in row.ids[begin:]:
            raise RenderingError(f"messages[{index}]: no end-of-turn token follows the answer")
        end = row.ids.index(marker, begin) + 1
        _check_answer(row.text[len(prompt.text) : row.offsets[end - 1][0]], messages[-1], index, opening=prompt.text)
        return _Answer(row, begin, end)

    def _opened_by_prompt(self, row: Rendered, prompt: Rendered, message: Mapping[str, Any]) -> Rendered | None:
        """The prompt and what is left of the answer, where the prompt already holds how the answer begins.

        DeepSeek-R1's prompt ends with <think>, and its template cuts the thinking out of every rendered answer. The
        model's own answer is the text as it was written, without what the prompt holds.
        """
        content = message["content"]
        lengths = range(min(len(content), MAX_OPENING_CHARS), 0, -1)
        opening = next((content[:n] for n in lengths if prompt.text.endswith(content[:n])), "")
        before = prompt.text.removesuffix(opening)
        if message.get("tool_calls") or not opening.strip() or not row.text.startswith(before):
            return None
        return self.template.tokenise(prompt.text + content[len(opening) :] + self.template.closing)

    def _difference(self, row: Rendered, prompt: Rendered) -> str:
        """Why `row` does not begin with `prompt`, with the tokens around the first difference."""
        pairs = zip(prompt.ids, row.ids, strict=False)
        at = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
        sent, found = (self._shown(rendered.ids, at) for rendered in (prompt, row))
        reason = "the chat template rewrites what stands before the answer"
        if row.text.startswith(prompt.text):
            reason = "the tokenizer joins the end of the prompt with the beginning of the answer; begin it differently"
        return (
            f"the prompt that serving sends is not how this row begins; {reason}; "
            f"at token {at} serving sends {sent} and the row has {found}"
        )

    def _shown(self, ids: Sequence[int], at: int) -> str:
        near = ids[max(at - SHOWN_TOKENS, 0) : at + SHOWN_TOKENS]
        return repr([str(self.tokenizer.decode([token])) for token in near])


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


def _texts(conversation: Conversation) -> Iterator[tuple[str, str]]:
    """Everything a row's author wrote that reaches the template, with its place."""
    for index, message in enumerate(conversation.messages):
        yield f"messages[{index}].content", message.content or ""
        for call in message.tool_calls:
            yield f"messages[{index}].tool_calls", "\n".join((call.id, call.name, *_leaves(json.loads(call.arguments))))
    for index, tool in enumerate(conversation.tools):
        yield f"tools[{index}]", "\n".join(_leaves(dict(tool)))


def _leaves(value: Any) -> Iterator[str]:
    """The keys and values of nested JSON, as text."""
    match value:
        case dict():
            for key, inner in value.items():
                yield key
                yield from _leaves(inner)
        case list():
            for inner in value:
                yield from _leaves(inner)
        case str():
            yield value
        case _:
            yield json.dumps(value)


def _stands_in(content: str, text: str) -> bool:
    """Whether a template wrote `content`, trimmed or not, as it is or as a JSON string."""
    content = content.strip()
    spelled = (content, json.dumps(content)[1:-1], json.dumps(content, ensure_ascii=False)[1:-1])
    return any(form in text for form in spelled)


def _check_answer(answer: str, message: Mapping[str, Any], index: int, opening: str) -> None:
    """The message's text and calls must stand in the answer, in their order.

    A template may change white space only at the ends of the text and around the tags of its thinking. `opening` is
    the prompt, which may hold the first tag.
    """
    parts = [part.strip() for part in re.split("(</?think>)", message["content"]) if part.strip()]
    if parts and parts[0] == "<think>" and opening.rstrip().endswith("<think>"):
        del parts[0]
    calls = [call["function"] for call in message.get("tool_calls", ())]
    position = 0
    for expected in (*parts, *(call["name"] for call in calls)):
        found = answer.find(expected, position)
        if found < 0:
            raise RenderingError(_changed(expected, answer, index))
        position = found + len(expected)
    for call in calls:
        arguments = call["arguments"]
        for leaf in _leaves(json.loads(arguments) if isinstance(arguments, str) else arguments):
            if not _stands_in(leaf, answer) and leaf.capitalize() not in answer:  # True, False, None
                raise RenderingError(_changed(leaf, answer, index))


def _changed(expected: str, answer: str, index: int) -> str:
    return f"messages[{index}]: the chat template changes the answer: {quoted(expected)} is not in {quoted(answer)}"


def _example(row: Rendered, answers: Sequence[_Answer]) -> Example:
    labels = [IGNORE_INDEX] * len(row.ids)
    for answer in answers:
        labels[answer.begin : answer.end] = row.ids[answer.begin : answer.end]
    return Example(tuple(row.ids), tuple(labels))


def supervised_runs(example: Example) -> Iterator[tuple[bool, list[int]]]:
    """The example cut where supervision begins or ends: (supervised, ids) in order."""
    run: list[int] = []
    state = False
    for token, label in zip(example.input_ids, example.labels, strict=True):
        if (label != IGNORE_INDEX) != state and run:
            yield state, run
            run = []
        state = label != IGNORE_INDEX
        run.append(token)
    if run:
        yield state, run
