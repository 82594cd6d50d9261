"""Output for terminals and pipes that cannot show every character: nothing that is printed ends a command.

Files hold any character, and so do the pictures that are drawn here. What an encoding lacks is drawn with ASCII, or
spelled by its code, as Python does.
"""

import codecs
import io
import sys

HANDLER = "trainer.narrow"

_DRAWN = {
    "…": "...",
    "→": "->",
    "•": "*",
    "⟦": "[[",
    "⟧": "]]",
    "═": "=",
    **dict.fromkeys("─━╌", "-"),
    **dict.fromkeys("│┃║", "|"),
    **dict.fromkeys("\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}", "'"),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}", "-"),
    **dict.fromkeys("\N{NO-BREAK SPACE}\N{BRAILLE PATTERN BLANK}", " "),
    "\N{MULTIPLICATION SIGN}": "x",
}
_DRAWN_RANGES = (("\u2500", "\u257f", "+"), ("\u2580", "\u259f", "#"), ("\u2801", "\u28ff", "*"))


def widen_output() -> None:
    """Let standard output and standard error take every character."""
    codecs.register_error(HANDLER, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_in_ascii, error.object[error.start : error.end])), error.end


def _in_ascii(char: str) -> str:
    if char in _DRAWN:
        return _DRAWN[char]
    for first, last, drawn in _DRAWN_RANGES:
        if first <= char <= last:
            return drawn
    return char.encode("ascii", "backslashreplace").decode()
