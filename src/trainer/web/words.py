"""Values as pages show them: times, durations, sizes and figures; an unknown one is a dash, never a guess.

A number that a page or a person sends is read here, too.
"""

import math
import re
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from trainer.runs import progress

UNKNOWN = "\N{EN DASH}"
UNITS = ("B", "kB", "MB", "GB", "TB")


def at(text: object) -> Any:
    """A time in ISO 8601 as a `time` element, in UTC; the page's script shows it in the reader's own zone."""
    try:
        moment = datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return UNKNOWN
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(), f"{moment:%Y-%m-%d %H:%M} UTC")


def second(text: object) -> str:
    """A time in ISO 8601 to the second in UTC, as logs have it."""
    try:
        return f"{datetime.fromisoformat(str(text)).astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return UNKNOWN


def duration(seconds: object) -> str:
    """Seconds in the two largest units."""
    number = _finite(seconds)
    return UNKNOWN if number is None else progress.duration(number)


def since(text: object) -> Any:
    """The time from then on, which the page's script counts; in words without it."""
    try:
        moment = datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return UNKNOWN
    return Markup('<span data-since="{}">since {}</span>').format(moment.isoformat(), f"{moment:%Y-%m-%d %H:%M} UTC")


def size(num_bytes: object) -> str:
    """Bytes with three digits, in units of 1000."""
    number = _finite(num_bytes)
    if number is None:
        return UNKNOWN
    power = min(int(math.log10(number) / 3), len(UNITS) - 1) if number >= 1 else 0
    scaled = number / 1000**power
    return f"{scaled:.0f} {UNITS[power]}" if power == 0 or scaled >= 100 else f"{scaled:.1f} {UNITS[power]}"


def loss(value: object) -> str:
    """Four decimals, as the commands print losses."""
    number = _finite(value)
    return UNKNOWN if number is None else f"{number:.4f}"


def count(value: object) -> str:
    """A whole number with thousands apart."""
    number = _finite(value)
    return UNKNOWN if number is None else f"{number:,.0f}"


def known(value: object) -> Any:
    """The value, or a dash for none."""
    return UNKNOWN if value is None or value == "" else escape(value)


def prose(text: object) -> Any:
    """A sentence in which text between backticks is code."""
    pieces = str(text).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if number % 2 and number < len(pieces) - 1 else escape(piece)
        for number, piece in enumerate(pieces)
    )


def sentence(text: object) -> str:
    """The text as a sentence begins; one that begins with a place, such as a file's name, stays as it is."""
    words = str(text)
    first = words.split(maxsplit=1)[:1]
    return words if first and first[0].endswith(":") else f"{words[:1].upper()}{words[1:]}"


def found(text: str, wanted: str) -> list[tuple[str, bool]]:
    """The text in parts, each with True where it is the wanted text in any case."""
    if not wanted:
        return [(text, False)]
    parts = re.split(f"({re.escape(wanted)})", text, flags=re.IGNORECASE)
    return [(part, number % 2 == 1) for number, part in enumerate(parts) if part]


def whole_number(text: str, most: int) -> int | None:
    """The number of a text of ASCII digits, `most` for any greater one; None where it is no such text.

    `str.isdigit` is true of digits that `int` refuses, and `int` refuses more than some thousand of them.
    """
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0") or "0"
    return min(int(digits), most) if len(digits) <= len(str(most)) else most


def _finite(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]  # checked in the line above


SHOWN = (at, second, duration, since, size, loss, count, known, prose, sentence, found)
FILTERS = {function.__name__: function for function in SHOWN}
