"""Languages of rows, as py3langid tells them from their letters; rows of few words or of code remain undetermined."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from trainer.data.conversations import Conversation
from trainer.extras import is_installed

DETECTOR = "py3langid"
UNDETERMINED = "und"  # ISO 639's own code
NOT_LINGUISTIC = "zxx"
SURE = 0.5  # the least confidence that names a language; two of similar spelling share the rest
LOOKED_AT = 2_000  # rows, evenly spaced
CHARACTERS = 1_000  # of a row; more changes no language and takes time
NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech", "da": "Danish",
    "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "fa": "Persian",
    "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian",
    "nl": "Dutch", "no": "Norwegian", "nb": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish", "th": "Thai",
    "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
    NOT_LINGUISTIC: "no language", UNDETERMINED: "undetermined",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Languages:
    """Rows by the language of their questions and answers, the most frequent first.

    `rows` counts those that were looked at; `confidence` is the median of those whose language was determined.
    """

    rows: int
    by_code: dict[str, int]  # by ISO 639 code; UNDETERMINED for rows below SURE
    confidence: float | None


def detect_languages(rows: Sequence[Conversation]) -> Languages | None:
    """The languages of evenly spaced rows; None where the detector is not installed."""
    if not is_installed(DETECTOR):
        return None
    step = max(1, -(-len(rows) // LOOKED_AT))
    found = [_language(row) for row in rows[::step]]
    sure = sorted(confidence for code, confidence in found if code != UNDETERMINED)
    counts = Counter(code for code, _ in found)
    return Languages(len(found), dict(counts.most_common()), sure[len(sure) // 2] if sure else None)


def name_of(code: str) -> str:
    """The English name of a language, or its code."""
    return NAMES.get(code, code)


def _language(row: Conversation) -> tuple[str, float]:
    said = (message.content for message in row.messages if message.role in ("user", "assistant"))
    text = " ".join(text[:CHARACTERS] for text in said if text)[:CHARACTERS]
    code, confidence = _identifier().classify(text)
    return (str(code) if confidence >= SURE else UNDETERMINED), float(confidence)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
