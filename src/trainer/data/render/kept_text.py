"""Texts, calls and tools that a chat template must keep of a conversation, which is refused otherwise."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.data.conversations import Conversation
from trainer.data.render.chat_template import ChatMessages, RenderingError, Tools
from trainer.data.render.thoughts import without_empty_thought
from trainer.errors import quoted


def check_kept(messages: ChatMessages, tools: Tools, text: str) -> None:
    """System, user and tool texts and the tools must stand in the rendering; answers are checked by their spans.

    Raises: RenderingError.
    """
    position = 0  # messages mostly stand in their order: a search from the start for each would take ever longer
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            continue
        content = message["content"].strip()
        found = text.find(content, position)
        if found >= 0 and message["role"] not in ("system", "developer"):
            position = found
        elif found < 0 and not _stands_in(content, text):
            raise RenderingError(left_out(index, str(message["role"])))
    for tool in tools or ():
        if tool["function"]["name"] not in text:
            raise RenderingError(f"the tool {tool['function']['name']!r} is left out by this model's chat template")


def probe_text(index: int) -> str:
    """A text for message `index` that stands nowhere else."""
    return f"probe-{index}-text"


def probes_in(text: str) -> set[str]:
    """The texts of `probe_text` that a rendering holds."""
    return set(re.findall(r"probe-\d+-text", text))


def check_answer(answer: str, message: Mapping[str, Any], index: int, opening: str) -> None:
    """The message's text and calls must stand in the answer, in their order.

    A template may change white space only at the ends of the text and around the tags of its thinking. `opening` is
    the prompt, which may hold the first tag. Raises: RenderingError.
    """
    content = without_empty_thought(message["content"])
    parts = [part.strip() for part in re.split("(</?think>)", content) if part.strip()]
    if parts and parts[0] == "<think>" and opening.rstrip().endswith("<think>"):
        del parts[0]
    if thought := message.get("reasoning_content"):
        parts.insert(0, thought.strip())
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


def left_out(index: int, role: str) -> str:
    """The reason for refusing a conversation of which a message is missing in the rendering."""
    return (
        f"messages[{index}] ({role}) is dropped or rewritten by this model's chat template; "
        "move its text into a user message or choose another base"
    )


def texts_of(conversation: Conversation) -> Iterator[tuple[str, str]]:
    """Texts that the author of a row wrote in its messages, with their places."""
    for index, message in enumerate(conversation.messages):
        yield f"messages[{index}].content", message.content or ""
        if message.reasoning_content:
            yield f"messages[{index}].reasoning_content", message.reasoning_content
        for call in message.tool_calls:
            yield f"messages[{index}].tool_calls", "\n".join((call.id, call.name, *_leaves(json.loads(call.arguments))))


def texts_of_tools(conversation: Conversation) -> Iterator[tuple[str, str]]:
    """Texts that the author of a row wrote in its tools, with their places."""
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
    """True if a template wrote `content`, trimmed or not, as it is or as a JSON string."""
    content = content.strip()
    if content in text:
        return True
    return json.dumps(content)[1:-1] in text or json.dumps(content, ensure_ascii=False)[1:-1] in text


def _changed(expected: str, answer: str, index: int) -> str:
    return f"messages[{index}]: the chat template changes the answer: {quoted(expected)} is not in {quoted(answer)}"
