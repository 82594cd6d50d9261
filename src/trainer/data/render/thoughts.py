"""The form in which a chat template writes thoughts, read off its renderings of probe conversations.

A thought stands in the key reasoning_content of a message. Most templates that know thoughts write it between tags
before the answer; gpt-oss has a channel for it; DeepSeek-R1's prompt opens it, and no rendering shows it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from trainer.data.render.probes import PROBE, USER, RenderingError

THOUGHT = "probe thought"
_SPACE = re.compile(r"\s+")
_TAGGED = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)

Render = Callable[..., str]


@dataclass(frozen=True, slots=True)
class ThoughtForm:
    """Text of a template around a thought; white space may differ from message to message.

    `after` stands between a thought and the answer. `empty` is None where an answer without a thought follows the
    prompt at once; else the template writes a thought of nothing before it: `empty` is what it adds to the prompt,
    without white space, and `end` how that ends.
    """

    after: str
    empty: str | None = None
    end: str = ""
    cut: bool = False  # the prompt opens the thought, and the template leaves it out of every rendering

    def behind(self, text: str, begin: int, thought: str) -> int | None:
        """Place at which the answer behind `thought` begins in `text`, not before `begin`; None where it is not."""
        close = self.after.strip()
        at = text.find(close, begin)
        if at < 0 or thought.strip() not in text[begin:at]:
            return None
        return at + len(close) + num_shared(text[at + len(close) :], self.after[len(self.after.rstrip()) :])

    def behind_nothing(self, text: str, begin: int, rest: str) -> int | None:
        """As `behind`, of a thought of nothing. `rest` is what the prompt has after the first `begin` characters."""
        if self.empty is None:
            return None
        close = self.end.rstrip()
        at = text.find(close, begin)
        end = at + len(close)
        if at < 0 or bare(text[begin:end]) != bare(rest) + self.empty:
            return None
        return end + num_shared(text[end:], self.end[len(close) :])

    @property
    def has_tags(self) -> bool:
        """True if the end of a thought can be told from the rendering alone."""
        return self.cut or self.empty is not None or self.after.strip() == "</think>"


TAGGED = ThoughtForm("\n</think>\n\n")  # as an author writes one into the text of an answer


def thought_form(render: Render) -> ThoughtForm | None:
    """The form of the template that `render` runs; None where it has no place for a thought."""
    try:
        prompt = render([USER], prompt=True)
        plain = render([USER, {"role": "assistant", "content": PROBE}])
        said = render([USER, {"role": "assistant", "content": PROBE, "reasoning_content": THOUGHT}])
    except RenderingError:
        return None
    before, found, rest = said.partition(THOUGHT)
    if not found:
        tail = prompt[len(prompt.rstrip()) :]
        return ThoughtForm(f"{tail}</think>{tail * 2}", cut=True) if prompt.rstrip().endswith("<think>") else None
    after, found, _ = rest.partition(PROBE)
    if not found or not after.strip():
        return None
    without = plain.partition(PROBE)[0]
    is_empty = bare(before + after) == bare(without) and bare(without).startswith(bare(prompt))
    if not is_empty or bare(without) == bare(prompt):
        return ThoughtForm(after)
    return ThoughtForm(after, bare(without)[len(bare(prompt)) :], without[without.rindex(after.strip()) :])


def tagged_thought(content: str) -> str | None:
    """The thought between tags at the head of an answer; None where there is none, or nothing between them."""
    found = _TAGGED.match(content)
    return found[1] if found and found[1].strip() else None


def without_empty_thought(content: str) -> str:
    """The text of an answer without a thought of nothing at its head."""
    found = _TAGGED.match(content)
    return content[found.end() :] if found and not found[1].strip() else content


def without_thought(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message without its thought."""
    return {key: value for key, value in message.items() if key not in ("reasoning_content", "thinking")}


def bare(text: str) -> str:
    """The text without white space."""
    return _SPACE.sub("", text)


def num_shared(one: str, other: str) -> int:
    """The number of characters with which both begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
