"""A Conversation becomes token ids and labels that are exactly what serving will see.

The mask is derived from the model's own chat template, never from a pattern of ours. For every trained answer the
template renders the conversation twice: up to the answer with the generation prompt (what serving sends), and with
the answer. The answer and its end-of-turn token are what the second has beyond the first. Each derivation is checked
on the row itself; a row for which it does not hold is refused with the reason.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trainer.data.conversations import Conversation, Message
from trainer.errors import quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE_INDEX = -100  # torch's cross_entropy ignores this label

PROBE = "probe answer"  # stands in for an answer when the template's end marker is looked up


@dataclass(frozen=True, slots=True)
class Example:
    """A tokenised row. `labels` equals `input_ids` where supervised and is -100 elsewhere; both have length T."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def num_supervised(self) -> int:
        return sum(label != IGNORE_INDEX for label in self.labels)


class RenderingError(ValueError):
    """A conversation that this template cannot render exactly; the text says why."""


@dataclass(frozen=True, slots=True)
class _Text:
    """Rendered text with its ids and, for each id, where its characters begin and end."""

    text: str
    ids: list[int]
    offsets: list[tuple[int, int]]


class Renderer:
    """Renders conversations with one tokenizer and its chat template."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer

    def render(self, conversation: Conversation) -> list[Example]:
        """One example, or one for each trained answer where the template rewrites earlier turns.

        Reasoning models drop the thinking of earlier answers: there no single rendering is what serving saw at every
        answer, so each trained answer is rendered with the history as serving would send it.

        Raises: RenderingError.
        """
        messages = [self._as_template_input(message) for message in conversation.messages]
        tools = [dict(tool) for tool in conversation.tools] or None
        self._refuse_control_tokens(conversation)
        trained = [index for index, message in enumerate(conversation.messages) if message.trained]
        whole = self._encode(messages, tools)
        self._check_nothing_dropped(conversation.messages, whole.text)
        try:
            return [self._example(whole, [self._span(whole, messages, tools, index) for index in trained])]
        except RenderingError:
            if len(trained) == 1 and trained[0] == len(messages) - 1:
                raise
        examples = []
        for index in trained:
            prefix = self._encode(messages[: index + 1], tools)
            self._check_nothing_dropped(conversation.messages[: index + 1], prefix.text)
            examples.append(self._example(prefix, [self._span(prefix, messages[: index + 1], tools, index)]))
        return examples

    def prompt_ids(self, messages: Sequence[Mapping[str, Any]], tools: list[dict[str, Any]] | None = None) -> list[int]:
        """What serving sends to the model: the messages and the generation prompt."""
        return self._tokenise(self._render(messages, tools, prompt=True)).ids

    @cached_property
    def end_markers(self) -> frozenset[int]:
        """Ids that end an assistant turn: in the middle of a conversation, and at its end.

        Raises: RenderingError, when the template ends a turn without a special token, so that a tuned model could not
        learn to stop.
        """
        user, answer = {"role": "user", "content": "probe question"}, {"role": "assistant", "content": PROBE}
        markers = set()
        for messages in ([user, answer], [user, answer, user, answer]):
            encoded = self._encode(messages, None)
            after = encoded.text.index(PROBE) + len(PROBE)
            special = (
                token
                for token, (start, end) in zip(encoded.ids, encoded.offsets, strict=True)
                if start >= after and end > start and token in self._special_ids
            )
            marker = next(special, None)
            if marker is None:
                raise RenderingError(
                    "the chat template ends an assistant message without a special token, expected an end-of-turn "
                    "token; a tuned model would not learn to stop"
                )
            markers.add(marker)
        return frozenset(markers)

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset(self.tokenizer.all_special_ids) | {index for index, token in added if token.special}

    @cached_property
    def _control_strings(self) -> tuple[str, ...]:
        return tuple(str(self.tokenizer.convert_ids_to_tokens(index)) for index in sorted(self._special_ids))

    @cached_property
    def keeps_developer(self) -> bool:
        """Whether the template knows the role developer; where it does not, it is rendered as system."""
        return "developer" in str(self.tokenizer.chat_template)

    def _as_template_input(self, message: Message) -> dict[str, Any]:
        """The message as chat templates take it: arguments of tool calls as an object, not as text."""
        role = "system" if message.role == "developer" and not self.keeps_developer else message.role
        value: dict[str, Any] = {"role": role, "content": message.content or ""}
        if message.tool_calls:
            value["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.loads(call.arguments)},
                }
                for call in message.tool_calls
            ]
        optional = {"name": message.name, "tool_call_id": message.tool_call_id}
        return value | {key: text for key, text in optional.items() if text is not None}

    def _refuse_control_tokens(self, conversation: Conversation) -> None:
        """Text that spells a control token would be read as one, and could end a turn early."""
        for index, message in enumerate(conversation.messages):
            for token in self._control_strings:
                if message.content and token in message.content:
                    raise RenderingError(
                        f"messages[{index}].content holds {token!r}, a control token of this model; "
                        "remove or respell it"
                    )

    def _check_nothing_dropped(self, messages: Sequence[Message], text: str) -> None:
        """System, user and tool texts must stand in the rendering; answers are checked by their spans."""
        for index, message in enumerate(messages):
            content = (message.content or "").strip()
            spelled = (content, json.dumps(content)[1:-1], json.dumps(content, ensure_ascii=False)[1:-1])
            if message.role != "assistant" and not any(form in text for form in spelled):
                raise RenderingError(
                    f"messages[{index}] ({message.role}) is dropped or rewritten by this model's chat template; "
                    "move its text into a user message or choose another base"
                )

    def _span(
        self, whole: _Text, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, index: int
    ) -> tuple[int, int]:
        """First and last-plus-one token of the answer `messages[index]` in `whole`, its end marker included."""
        prompt = self._tokenise(self._render(messages[:index], tools, prompt=True))
        begin = len(prompt.ids)
        if whole.ids[:begin] != prompt.ids:
            raise RenderingError(
                f"messages[{index}]: the prompt that serving sends is not how this row begins; the chat template "
                "rewrites what stands before the answer"
            )
        end = next((i + 1 for i in range(begin, len(whole.ids)) if whole.ids[i] in self.end_markers), None)
        if end is None:
            raise RenderingError(f"messages[{index}]: no end-of-turn token follows the answer")
        if (
            index < len(messages) - 1
            and self._encode(messages[: index + 1], tools).ids[: end - 1] != whole.ids[: end - 1]
        ):
            raise RenderingError(f"messages[{index}]: the chat template rewrites the answer once another turn follows")
        self._check_answer(whole.text[len(prompt.text) : whole.offsets[end - 1][0]], messages[index], index)
        return begin, end

    @staticmethod
    def _check_answer(answer: str, message: Mapping[str, Any], index: int) -> None:
        names = [call["function"]["name"] for call in message.get("tool_calls", ())]
        for expected in (message["content"].strip(), *names):
            if expected not in answer:
                raise RenderingError(
                    f"messages[{index}]: the chat template changes the answer: {quoted(expected)} is not in "
                    f"{quoted(answer)}"
                )

    @staticmethod
    def _example(whole: _Text, spans: Sequence[tuple[int, int]]) -> Example:
        labels = [IGNORE_INDEX] * len(whole.ids)
        for begin, end in spans:
            labels[begin:end] = whole.ids[begin:end]
        return Example(tuple(whole.ids), tuple(labels))

    def _encode(self, messages: Sequence[Mapping[str, Any]], tools: list[dict[str, Any]] | None) -> _Text:
        return self._tokenise(self._render(messages, tools, prompt=False))

    def _render(self, messages: Sequence[Mapping[str, Any]], tools: list[dict[str, Any]] | None, prompt: bool) -> str:
        from jinja2 import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                list(messages), tools=tools, add_generation_prompt=prompt, tokenize=False
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise RenderingError(f"this model's chat template refuses the conversation: {error}") from None
        assert isinstance(text, str)
        return text

    def _tokenise(self, text: str) -> _Text:
        # The template has written the special tokens; adding them again would double the first.
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return _Text(text, list(encoding["input_ids"]), list(encoding["offset_mapping"]))


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
