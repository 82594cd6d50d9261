"""What is measured of an answer, and when a row counts as better."""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sacrebleu.metrics.chrf import CHRF

Sums = Mapping[str, tuple[float, float]]  # of one row: by measure a total, and the number of things in it
Outcome = Literal["better", "same", "worse"]

MARGIN = 5.0  # points of the score, of 100, that mean something: by which a row differs, and is above what chance gives
CALL_POINTS, NAME_POINTS = 100.0, 50.0  # for calls that are right, and for right names with wrong arguments

# A script without spaces has a word for each character.
_WORD = re.compile(r"[぀-ヿ㐀-䶿一-鿿豈-﫿]|[^\W぀-ヿ㐀-䶿一-鿿豈-﫿]+")


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


def outcome(right: tuple[float, float], score: tuple[float, float], noise: float) -> Outcome:
    """What became of a row: by how many of its answers were right before and after, else by its score.

    Between two scores that wrong answers get, up to `noise`, the higher one is no better.
    """
    if right[0] != right[1]:
        return "better" if right[1] > right[0] else "worse"
    base, tuned = score
    if abs(tuned - base) < MARGIN or max(score) < noise + MARGIN:
        return "same"
    return "better" if tuned > base else "worse"


@functools.cache
def _chrf() -> "CHRF":
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()
