"""Damage of encodings and web pages in a text, mended: each function gives the mended text, or the same one."""

import html
import re

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
# Scripts that break lines at zero-width spaces, as they write none between words.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\u1a20-\u1aaf"
_INVISIBLE = re.compile(
    rf"[\ufeff\u2060\u180e\u00ad]|(?<![{_UNSPACED}])\u200b(?![{_UNSPACED}])"
    r"|(?<=[\x00-\x7f])[\u200c\u200d]++(?=[\x00-\x7f])"
)
_DIRECTION = re.compile(r"[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_RIGHT_TO_LEFT = re.compile(r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_ENTITY = re.compile(r"&(?:#[0-9]{2,6}|#x[0-9A-Fa-f]{2,6}|[A-Za-z]{2,8}[0-9]{0,2});")
_MARKED_UP = re.compile(r"</?[A-Za-z!]|`|(?i:\b(?:html|xml|entit(?:y|ies)|escap(?:e|ed|ing))\b)")


def mend_mojibake(text: str) -> str:
    """Text that was decoded with the wrong encoding, decoded with its own one where that is certain."""
    if text.isascii():
        return text
    from ftfy import fix_encoding

    return str(fix_encoding(text))


def cut_control(text: str) -> str:
    """The text without control characters and terminal sequences; tabs and line ends stay."""
    return text if text.isprintable() else _CONTROL.sub("", text)


def cut_invisible(text: str) -> str:
    """The text without characters that have no width, where its script does not need them."""
    if text.isascii():
        return text
    shown = _INVISIBLE.sub("", text)
    return shown if _RIGHT_TO_LEFT.search(shown) else _DIRECTION.sub("", shown)


def decode_entities(text: str) -> str:
    """The text with HTML entities as the characters they stand for, unless it is about markup."""
    if "&" not in text or _MARKED_UP.search(text):
        return text
    return _ENTITY.sub(lambda entity: _decoded(entity[0]), text)


def _decoded(entity: str) -> str:
    """One visible character or a space; what else an entity stands for is left."""
    character = html.unescape(entity)
    if character == "\xa0":
        return " "
    return character if len(character) == 1 and character.isprintable() else entity
