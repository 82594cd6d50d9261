"""Values of a data file in a message: short, quoted, and never raw to a terminal."""

from collections.abc import Sequence

MAX_SHOWN_CHARS = 60


def printable(text: str) -> str:
    """`text` with every character that could steer a terminal shown as its escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def quoted(value: object) -> str:
    """A value of a row as a message shows it: JSON's own words, strings with repr, never longer than 60 characters."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case dict():
            return "an object"
        case list():
            return "a list"
        case str():
            text = repr(value[: MAX_SHOWN_CHARS + 1])
            return shortened(text, closing=text[-1])
        case _:
            return shortened(repr(value))


def shortened(text: str, closing: str = "") -> str:
    """`text`, cut to 60 characters with `closing` after the cut."""
    if len(text) <= MAX_SHOWN_CHARS:
        return text
    return f"{text[: MAX_SHOWN_CHARS - 1 - len(closing)]}…{closing}"


def counted(count: int, noun: str) -> str:
    """`1 row`, `1,024 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(words: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)
