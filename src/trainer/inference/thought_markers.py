"""Markers of thoughts in a model's own text, read off its template's renderings of a probe thought.

There is no list of models. A template that shows no thought (DeepSeek-R1's cuts it out of every answer) may open one
in its prompt; for all others it is <think>, which people write into texts that a template passes on.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any

from trainer.data.render.chat_template import PROBE, ChatTemplate, RenderingError
from trainer.inference.thoughts import THINK, ThoughtMarkers

THOUGHT, NAME = "probe thought", "probe_function"
_QUESTION = {"role": "user", "content": "probe question"}
_TOOL = {"name": NAME, "description": "A probe.", "parameters": {"type": "object", "properties": {}}}
_LAST_TAG = re.compile(r"<([^<>/\s]+)>\s*$")


def thought_markers(template: ChatTemplate) -> ThoughtMarkers:
    """Find out by probes what `template` writes around thoughts."""
    shown = _shown(template, calls=False) or _shown(template, calls=True)
    return shown or _opened(template) or replace(THINK, answer=THINK.split(_before(template, PROBE, False))[1])


def _shown(template: ChatTemplate, calls: bool) -> ThoughtMarkers | None:
    """As the template writes it before an answer, or before a call; None where it writes none there."""
    try:
        asked = _text(template, None, calls)
        told = _text(template, {"reasoning_content": THOUGHT}, calls)
    except RenderingError:
        return None
    target = NAME if calls else PROBE
    begin, end = told.rfind(THOUGHT), told.rfind(target)
    if not 0 <= begin < end or not told.startswith(asked):
        return None
    between = told[begin + len(THOUGHT) : end].strip()
    answer = _common_end(_before(template, target, calls), between)
    if answer == between:  # a thought of nothing stands before an answer without one
        answer = ""
    opening = told[len(asked) : begin].strip() or _last_tag(asked)
    closing = between.removesuffix(answer).strip()
    return ThoughtMarkers(opening, closing, "" if calls else answer.strip()) if opening and closing else None


def _before(template: ChatTemplate, target: str, calls: bool) -> str:
    """Text between the prompt and an answer without a thought."""
    try:
        asked, told = _text(template, None, calls), _text(template, {}, calls)
    except RenderingError:
        return ""
    return told[len(asked) : told.rfind(target)].strip() if told.startswith(asked) else ""


def _opened(template: ChatTemplate) -> ThoughtMarkers | None:
    """As the prompt opens it, if the template knows the tag that would close it."""
    try:
        opening = _last_tag(template.text([_QUESTION], prompt=True))
    except RenderingError:
        return None
    closing = opening.replace("<", "</", 1)
    return ThoughtMarkers(opening, closing) if opening and closing in str(template.tokenizer.chat_template) else None


def _last_tag(text: str) -> str:
    found = _LAST_TAG.search(text)
    return found[0].strip() if found else ""


def _text(template: ChatTemplate, answer: Mapping[str, Any] | None, calls: bool) -> str:
    """The prompt, or with an answer that has these fields."""
    tools = [{"type": "function", "function": _TOOL}] if calls else None
    if answer is None:
        return template.text([_QUESTION], tools, prompt=True)
    function = {"name": NAME, "arguments": json.dumps({"key": "text"})}
    made: dict[str, Any] = {"role": "assistant", "content": "" if calls else PROBE}
    if calls:
        made["tool_calls"] = [{"id": "probe0001", "type": "function", "function": function}]
    return template.text([_QUESTION, template.adapt(made | dict(answer))], tools)


def _common_end(one: str, other: str) -> str:
    """The longest text with which both end."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return one[len(one) - len(list(takewhile(lambda pair: pair[0] == pair[1], pairs))) :]
