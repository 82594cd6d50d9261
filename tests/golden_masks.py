"""Which tokens of each family's renderings are trained, as text to read: `python -m tests.golden_masks` writes it.

A + stands before tokens that are trained, a ~ before those that `data.train_reasoning: false` leaves out.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tests.conftest import talk
from tests.families import FAMILIES, Family, family_tokenizer
from trainer.data.conversations import Conversation, Message, ToolCall
from trainer.data.render.rendering import IGNORE_INDEX, Example, Renderer, RenderingError

FOLDER = Path(__file__).with_name("golden_masks")
WIDTH = 116

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the weather is",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = ToolCall("call_1", "weather", json.dumps({"city": "Bonn"}))
CASES = {
    "a system prompt and two turns": talk(
        ("system", "Be kind."),
        ("user", "Hi"),
        ("assistant", "Hello there."),
        ("user", "Bye"),
        ("assistant", "So long."),
    ),
    "a first answer of weight 0": talk(
        ("user", "Hi"), ("assistant", "Hello there."), ("user", "Bye"), ("assistant", "So long."), untrained=[1]
    ),
    "thoughts": talk(
        ("user", "Hi"),
        ("assistant", "<think>\nBe kind.\n</think>\n\nHello there."),
        ("user", "Bye"),
        ("assistant", "<think>\nBe brief.\n</think>\n\nSo long."),
    ),
    "thoughts apart": Conversation(
        (
            Message("user", "Hi"),
            Message("assistant", "Hello there.", reasoning_content="Be kind."),
            Message("user", "Bye"),
            Message("assistant", "So long.", reasoning_content="Be brief."),
        ),
        (),
        "rows.jsonl",
        1,
    ),
    "a thought, and none": Conversation(
        (
            Message("user", "Hi"),
            Message("assistant", "Hello there."),
            Message("user", "Bye"),
            Message("assistant", "So long.", reasoning_content="Be brief."),
        ),
        (),
        "rows.jsonl",
        1,
    ),
    "a thought before a call": Conversation(
        (
            Message("user", "Weather in Bonn?"),
            Message("assistant", None, tool_calls=(CALL,), reasoning_content="Ask."),
            Message("tool", "rain", tool_call_id="call_1"),
            Message("assistant", "Bring an umbrella.", reasoning_content="Be kind."),
        ),
        (WEATHER,),
        "rows.jsonl",
        1,
    ),
    "a tool call": Conversation(
        (
            Message("user", "Weather in Bonn?"),
            Message("assistant", None, tool_calls=(CALL,)),
            Message("tool", "rain", tool_call_id="call_1"),
            Message("assistant", "Bring an umbrella."),
        ),
        (WEATHER,),
        "rows.jsonl",
        1,
    ),
}


def golden_text(name: str) -> str:
    """All cases of a family: its tokens line by line, a + before those that are trained; or why it is refused."""
    family, renderer = FAMILIES[name], renderer_of(name, thinks=None)
    lines = [f"{name}, {_origin(family)}"]
    try:
        stops = [renderer.template.spelled(marker) for marker in sorted(renderer.end_markers)]
        lines += [f"generation stops at {' or '.join(stops)}"]
        for title, conversation in CASES.items():
            lines += _case(title, name, conversation)
    except RenderingError as error:
        lines += [f"refused: {error}"]
    return "\n".join(lines) + "\n"


@cache
def renderer_of(name: str, thinks: bool | None, train_reasoning: bool = True) -> Renderer:
    """The family's renderer, asked by default for thoughts, or for none, as rows with or without them ask."""
    return Renderer(family_tokenizer(name), train_reasoning, thinks)


def _origin(family: Family) -> str:
    return f"{'written here' if family.own else 'from TRL'}: {family.template}.jinja"


def _case(title: str, name: str, conversation: Conversation) -> Iterator[str]:
    renderer, other = (renderer_of(name, conversation.has_thought, trained) for trained in (True, False))
    try:
        examples, without = renderer.render(conversation), other.render(conversation)
    except RenderingError as error:
        yield f"\n## {title}\nrefused: {error}"
        return
    for number, (example, answers) in enumerate(zip(examples, without, strict=True), start=1):
        yield f"\n## {title}" + (f", example {number} of {len(examples)}" if len(examples) > 1 else "")
        assert example.input_ids == answers.input_ids
        yield from _token_lines(renderer, example, answers)


def _token_lines(renderer: Renderer, example: Example, answers: Example) -> Iterator[str]:
    """Lines end where the rendered text has a line break, where the mark changes, and where they are full."""
    line, mark = "", ""
    for token, label, answer in zip(example.input_ids, example.labels, answers.labels, strict=True):
        text = spelled(renderer.tokenizer, token)
        before, mark = mark, "  " if label == IGNORE_INDEX else "~ " if answer == IGNORE_INDEX else "+ "
        if line and (mark != before or line.endswith("\\n'") or len(line) + len(repr(text)) > WIDTH):
            yield line
            line = ""
        line = f"{line} {text!r}" if line else f"{mark}{text!r}"
    yield line


def spelled(tokenizer: Any, token: int) -> str:
    """A token as it stands in the text: SentencePiece's ▁ is a space, where decoding would leave out the first one."""
    piece = tokenizer.convert_ids_to_tokens(token)
    is_added = token in tokenizer.added_tokens_decoder
    return piece.replace("▁", " ") if "▁" in piece and not is_added else str(tokenizer.decode([token]))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in FAMILIES:
        (FOLDER / f"{name}.txt").write_text(golden_text(name), encoding="utf-8")
