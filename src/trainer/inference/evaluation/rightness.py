"""When a text counts as right or nearly right: the bar that a comparison counts by.

It is wrong in both directions at times: a good answer in other words is below it, and one that differs by a "not" can
be above it. So it is stated wherever its count is.
"""

import json
import re
from collections import Counter
from typing import Any

from trainer.inference.evaluation.measures import rouge_l, words
from trainer.inference.tool_calls import whole_numbers

SHORT = 5  # words: a reference of so few is a label, a name or a number, of which nothing may be missing
NEARLY = 80.0  # ROUGE-L, of 100, from which on a longer answer is nearly right

BAR = (
    "Right or nearly right is an answer that is the reference, letter case, white space and the last period aside; "
    f"or, where the reference has more than {SHORT} words, one that shares at least {NEARLY:.0f}% of the words in "
    "order (ROUGE-L), with the same numbers. JSON must hold the same values, tool calls the same names and arguments."
)

_NUMBER = re.compile(r"(?:(?<!\w)-)?\d+(?:[.,]\d+)*")
_MINUS = str.maketrans("\u2212\ufe63\uff0d", "---")  # signs that typography has for it


def is_right(answer: str, reference: str) -> bool:
    """Whether a text says what the reference does, or nearly."""
    if folded(answer) == folded(reference):
        return True
    wanted = _structure(reference)
    if wanted is not None:
        return bool(_structure(answer) == wanted)
    if not is_long(reference) or _numbers(answer) != _numbers(reference):
        return False
    return rouge_l(answer, reference) >= NEARLY


def folded(text: str) -> str:
    """A text without what makes no answer wrong."""
    return " ".join(text.translate(_MINUS).casefold().split()).rstrip(".。")


def is_long(reference: str) -> bool:
    """Whether an answer is a text of its own, and not a choice among a few."""
    return len(words(reference)) > SHORT


def _structure(text: str) -> Any:
    """The value of a JSON object or array; None where the text is none."""
    if not text.strip().startswith(("{", "[")):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return [type(value).__name__, json.dumps(whole_numbers(value), sort_keys=True)]


def _numbers(text: str) -> Counter[str]:
    return Counter(_NUMBER.findall(text.translate(_MINUS)))
