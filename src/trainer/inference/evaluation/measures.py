"""Measures of an answer, the bar for a right one, and the bar for a better row.

Right or nearly right is wrong in both directions at times: a good answer in other words is below the bar, and one that
differs by a "not" can be above it. So the bar is stated wherever its count is.
"""

import functools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trainer.inference.tool_calls import whole_numbers

if TYPE_CHECKING:
    from sacrebleu.metrics.chrf import CHRF

Sums = Mapping[str, tuple[float, float]]  # of one row: by measure a total, and the number of things in it
ModelKey = Literal["base", "start", "tuned"]  # "start" where the run trained an earlier one's adapter further
Outcome = Literal["better", "same", "worse"]

MARGIN = 5.0  # points of the score, of 100, that mean something: by which a row differs, and is above what chance gives
CALL_POINTS, NAME_POINTS = 100.0, 50.0  # for calls that are right, and for right names with wrong arguments

# A script without spaces has a word for each character.
_WORD = re.compile(r"[぀-ヿ㐀-䶿一-鿿豈-﫿]|[^\W぀-ヿ㐀-䶿一-鿿豈-﫿]+")

SHORT = 5  # words: a reference of so few is a label, a name or a number, of which nothing may be missing
NEARLY = 80.0  # ROUGE-L, of 100, from which on a longer answer is nearly right

BAR = (
    "Right or nearly right is an answer that is the reference, letter case, white space and the last period aside; "
    f"or, where the reference has more than {SHORT} words, one that shares at least {NEARLY:.0f}% of the words in "
    "order (ROUGE-L), with the same numbers. JSON must hold the same values, tool calls the same names and arguments."
)

_NUMBER = re.compile(r"(?:(?<!\w)-)?\d+(?:[.,]\d+)*")
_MINUS = str.maketrans("\u2212\ufe63\uff0d", "---")  # signs that typography has for it

OTHERS = 10  # references that each one is compared with: each costs 10 ms for answers of 2,000 characters


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure that is measured of both models."""

    title: str
    kind: Literal["number", "percent", "points", "characters"]
    better: Literal["higher", "lower"] | None  # None where neither is
    meaning: str

    def text(self, value: float, sign: bool = False) -> str:
        """The value for people."""
        plus = "+" if sign else ""
        match self.kind:
            case "percent":
                return f"{100 * value:{plus}.0f}{' pp' if sign else '%'}"
            case "points":
                return f"{value:{plus}.1f}"
            case "characters":
                return f"{value:{plus},.0f}"
        return f"{value:{plus}.3f}"


MEASURES = {
    "right": Measure("Right or nearly", "percent", "higher", "Answers that are the reference, or nearly so"),
    "score": Measure("Score", "points", "higher", "0 to 100: chrF of a text, or whether the tool calls are right"),
    "loss": Measure("Loss", "number", "lower", "How surprising a token of the reference answers is; 0 is certain"),
    "token_accuracy": Measure(
        "Token accuracy", "percent", "higher", "Tokens of the reference answers that were its first choice"
    ),
    "preference": Measure(
        "Prefers the preferred", "percent", "higher", "Pairs whose preferred answer is likelier than the other"
    ),
    "margin": Measure(
        "Margin of the preferred", "number", "higher", "How much likelier the preferred answer of a pair is, in nats"
    ),
    "exact": Measure("Exact match", "percent", "higher", "Answers that are the reference, letter for letter"),
    "chrf": Measure("chrF", "points", "higher", "0 to 100: character sequences shared with the reference"),
    "rouge_l": Measure("ROUGE-L", "points", "higher", "0 to 100: words shared with the reference, in its order"),
    "calls": Measure("Tool calls right", "percent", "higher", "Of the answers that should: right names and arguments"),
    "call_names": Measure("Tool names right", "percent", "higher", "The same, whatever the arguments"),
    "call_choice": Measure("Calls when it should", "percent", "higher", "Calls a tool where the reference does, only"),
    "ended": Measure("Ended by itself", "percent", "higher", "Answers that were not cut off"),
    "length": Measure("Length", "characters", None, "Characters an answer"),
}


def text_measures(answer: str, reference: str) -> dict[str, float]:
    """Exact match (0 or 1), chrF and ROUGE-L (0 to 100) of one answer."""
    return {
        "exact": float(answer.strip() == reference.strip()),
        "chrf": chrf(answer, reference),
        "rouge_l": rouge_l(answer, reference),
    }


def chrf(answer: str, reference: str) -> float:
    """The character sequences that two texts share, 0 to 100."""
    return float(_chrf().sentence_score(answer, [reference]).score)


def rouge_l(answer: str, reference: str) -> float:
    """The F-measure of the longest common subsequence of words, 0 to 100.

    Own, since the usual package drops every letter outside of a to z, and with it all of Greek, Russian or Chinese.
    """
    from rapidfuzz.distance import LCSseq

    found, wanted = words(answer), words(reference)
    common = LCSseq.similarity(found, wanted)
    return 200 * common / (len(found) + len(wanted)) if common else 0.0


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.lower())


@functools.cache
def _chrf() -> "CHRF":
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def is_right(answer: str, reference: str) -> bool:
    """True if a text says what the reference does, or nearly."""
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
    """True for an answer that is a text of its own, and not a choice among a few."""
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


def noise_levels(references: Sequence[str | None]) -> list[float]:
    """Scores of wrong answers: for each reference the highest chrF of another against it; 0 without another.

    Texts on one subject in one tone share letters whatever they say, and the references of other rows are such wrong
    answers: what comes no closer than the closest of them says nothing about whether it is right. None stands for
    tool calls, which are right, half right or wrong without any noise.
    """
    first: dict[str, str] = {}  # of those that differ in nothing but what makes no answer wrong
    for reference in references:
        if reference is not None:
            first.setdefault(folded(reference), reference)
    place = {text: number for number, text in enumerate(first)}
    different = list(first.values())
    return [
        0.0
        if reference is None
        else max((chrf(other, reference) for other in _others(different, place[folded(reference)])), default=0.0)
        for reference in references
    ]


def _others(different: Sequence[str], number: int) -> list[str]:
    """Those that follow, beginning anew after the last."""
    count = min(OTHERS, len(different) - 1)
    return [different[(number + 1 + step) % len(different)] for step in range(count)]


def outcome(right: tuple[float, float], score: tuple[float, float], noise: float) -> Outcome:
    """Class of a row: by the number of right answers before and after, else by its score.

    Between two scores that wrong answers get, up to `noise`, the higher one is no better.
    """
    if right[0] != right[1]:
        return "better" if right[1] > right[0] else "worse"
    base, tuned = score
    if abs(tuned - base) < MARGIN or max(score) < noise + MARGIN:
        return "same"
    return "better" if tuned > base else "worse"
