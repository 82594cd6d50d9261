"""One answer of a conversation: the prompt that serving sends, and the text with which the model should continue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from trainer.data.render.chat_template import ChatMessages, ChatTemplate, RenderingError, Tools
from trainer.data.render.kept_text import check_answer
from trainer.data.render.thoughts import TAGGED, num_shared, tagged_thought, without_thought
from trainer.data.render.turns import Turns

MAX_OPENING_CHARS = 100  # of an answer that a prompt can hold: <think> and a line break, in the models there are
SHOWN_TOKENS = 8  # on each side of a difference

_QUESTION = {"role": "user", "content": "question"}


@dataclass(frozen=True, slots=True)
class RenderedAnswer:
    """A rendering that begins with a prompt up to `begin` and holds the answer up to `end`, its end marker included.

    A thought of nothing that the template writes is part of the prompt. `said` is where the answer begins behind its
    thought, and equals `begin` where there is none.
    """

    index: int  # of its message
    text: str
    begin: int
    said: int
    end: int
    marker: int  # id of the end marker

    @property
    def prompt(self) -> str:
        """Text that serving sends."""
        return self.text[: self.begin]


def answer_of(template: ChatTemplate, messages: ChatMessages, tools: Tools) -> RenderedAnswer:
    """The last of `messages`, rendered behind what serving sends before it. Raises: RenderingError."""
    index, message = len(messages) - 1, messages[-1]
    if index == 0:
        raise RenderingError("messages[0] is an answer to nothing, expected a message before it; add the question")
    prompt = template.text(messages[:-1], tools, prompt=True)
    text = template.text(messages, tools)
    begin = _behind_nothing(template, text, prompt, message, index)
    if begin is not None:
        return _found(template, message, index, text, begin, begin, len(text))
    if not text.startswith(prompt):
        text = (
            _opened_by_prompt(template, text, prompt, message) or _moved(template, text, prompt, message, tools) or text
        )
    if not text.startswith(prompt):
        raise RenderingError(f"messages[{index}]: {difference(template, prompt, text)}")
    said = _behind_thought(template, text, len(prompt), messages, tools)
    return _found(template, message, index, text, len(prompt), said, len(text))


def answer_in(
    template: ChatTemplate, message: Mapping[str, Any], index: int, turns: Turns, asked: Turns
) -> RenderedAnswer | None:
    """As `answer_of`, found in one rendering of the whole conversation; None where that does not show it.

    `asked` is the same conversation as a prompt: its end is what serving sends before each answer. Raises:
    RenderingError.
    """
    begin, end = turns.begins.get(index), turns.begins.get(index + 1)
    if begin is None or end is None or not turns.text.startswith(asked.closing, begin):
        return None
    begin += len(asked.closing)
    form, nothing = template.thoughts, None
    if message.get("reasoning_content") or tagged_thought(message["content"]):
        return None
    if form is not None:
        nothing = form.behind_nothing(turns.text, begin, "")
    begin = begin if nothing is None else nothing
    if turns.text.find(template.spelled(template.end_marker(message)), begin, end) < 0:
        return None
    return _found(template, message, index, turns.text, begin, begin, end)


def _found(
    template: ChatTemplate, message: Mapping[str, Any], index: int, text: str, begin: int, said: int, stop: int
) -> RenderedAnswer:
    """The answer that begins there and ends before `stop`. Raises: RenderingError."""
    marker = template.end_marker(message)
    end = text.find(template.spelled(marker), said, stop)
    if end < 0:
        raise RenderingError(f"messages[{index}]: no end-of-turn token follows the answer")
    check_answer(text[begin:end], message, index, opening=text[max(begin - MAX_OPENING_CHARS, 0) : begin])
    return RenderedAnswer(index, text, begin, said, end + len(template.spelled(marker)), marker)


def _behind_nothing(
    template: ChatTemplate, text: str, prompt: str, message: Mapping[str, Any], index: int
) -> int | None:
    """The end of the thought of nothing that the template writes before an answer without one; None where none is.

    It is what serving sends where the model shall not think, so that the answer follows it there, too. Raises:
    RenderingError.
    """
    if template.thoughts is None or message.get("reasoning_content"):
        return None
    shared = len(prompt) if text.startswith(prompt) else num_shared(text, prompt)
    begin = template.thoughts.behind_nothing(text, shared, prompt[shared:])
    if begin is not None and tagged_thought(message["content"]):
        raise RenderingError(
            f"messages[{index}].content begins with <think>, before which this model's chat template writes a thought "
            "of nothing; move it to reasoning_content with: trainer data convert FILE"
        )
    return begin


def _behind_thought(template: ChatTemplate, text: str, begin: int, messages: ChatMessages, tools: Tools) -> int:
    """The place in `text` at which the last of `messages` begins behind its thought. Raises: RenderingError."""
    message = messages[-1]
    thought, form = message.get("reasoning_content"), template.thoughts
    if not thought or form is None:
        thought, form = tagged_thought(message["content"]), TAGGED
    if not thought:
        return begin
    if form.has_tags:
        said = form.behind(text, begin, thought)
    else:
        plain = answer_of(template, [*messages[:-1], without_thought(message)], tools)
        rest = plain.text[plain.begin :]
        said = len(text) - len(rest) if text.endswith(rest) else None
    if said is None:
        check_answer(text[begin:], message, len(messages) - 1, opening=text[max(begin - MAX_OPENING_CHARS, 0) : begin])
    if said is None and form is not TAGGED:
        raise RenderingError(
            f"messages[{len(messages) - 1}].reasoning_content cannot be told from the answer in this model's chat "
            "template, expected an end of the thought; choose another base"
        )
    return begin if said is None else said


def _opened_by_prompt(template: ChatTemplate, text: str, prompt: str, message: Mapping[str, Any]) -> str | None:
    """The prompt and what is left of the answer, where the prompt already holds how the answer begins.

    DeepSeek-R1's prompt ends with <think>, and its template cuts the thinking out of every rendered answer. The
    model's own answer is the text as it was written, without what the prompt holds.
    """
    content: str = message["content"]
    if (thought := message.get("reasoning_content")) and template.thoughts is not None and template.thoughts.cut:
        begin, after = prompt.rstrip().removesuffix("<think>"), template.thoughts.after
        said = text.removeprefix(begin)
        if said.startswith(after.strip()):  # V3.1 closes a thought before every answer
            after = ""
        return prompt + thought.strip() + after + said if text.startswith(begin) else None
    lengths = range(min(len(content), MAX_OPENING_CHARS), 0, -1)
    opening = next((content[:n] for n in lengths if prompt.endswith(content[:n])), "")
    if message.get("tool_calls") or not opening.strip() or not text.startswith(prompt.removesuffix(opening)):
        return None
    return prompt + content[len(opening) :] + template.closing


def _moved(template: ChatTemplate, text: str, prompt: str, message: Mapping[str, Any], tools: Tools) -> str | None:
    """The prompt and the answer, where an answer makes the template write something else before it.

    Mistral's templates write the system prompt into the last question, and nowhere once that has its answer. The
    answer itself is written there as after a single question.
    """
    try:
        question = template.text([_QUESTION], tools, prompt=True)
        answered = template.text([_QUESTION, message], tools)
    except RenderingError:
        return None
    answer = answered[len(question) :]
    return prompt + answer if answered.startswith(question) and text.endswith(answer) else None


def difference(template: ChatTemplate, prompt: str, text: str) -> str:
    """Say where the rendering `text` departs from `prompt`, with the tokens around the first difference."""
    sent, row = template.tokenise(prompt).ids, template.tokenise(text).ids
    at = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(sent, row, strict=False))))
    return (
        f"the prompt that serving sends is not how this row begins; {_reason(text, prompt)}; at token {at} serving "
        f"sends {_shown(template, sent, at)} and the row has {_shown(template, row, at)}"
    )


def _reason(text: str, prompt: str) -> str:
    if prompt.rstrip().endswith("</think>"):
        return (
            "the prompt asks for an answer without a thought; take the thought out, or set a template that thinks as "
            "model.chat_template"
        )
    if prompt.rstrip().endswith("<think>"):
        return "the prompt opens a thought, which this answer does not begin with; write it as reasoning_content"
    if text.startswith(prompt):
        return "the tokenizer joins the end of the prompt with the beginning of the answer; begin it differently"
    return "the chat template rewrites what stands before the answer"


def _shown(template: ChatTemplate, ids: Sequence[int], at: int) -> str:
    near = ids[max(at - SHOWN_TOKENS, 0) : at + SHOWN_TOKENS]
    return repr([str(template.tokenizer.decode([token])) for token in near])
