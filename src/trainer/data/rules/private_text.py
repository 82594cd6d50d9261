"""Secrets and obvious personal data in a text. What is found is never shown beyond its first four characters."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

NUM_SHOWN_CHARS = 4


@dataclass(frozen=True, slots=True)
class Private:
    """Something that should not be trained on; `code` is SECRET or PERSONAL_DATA."""

    code: str
    kind: str
    value: str

    @property
    def shown(self) -> str:
        return repr(self.value[:NUM_SHOWN_CHARS] + "…")


# kind, texts of which every match holds one (looked for first, as that is cheap), the shape. Runs of token characters
# are entered at their start only and are possessive, so that no text takes more than linear time.
_SECRETS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "an API key",
        ("sk-",),
        r"(?<![\w-])sk-(?=[A-Za-z0-9_-]{0,200}[0-9])(?=[A-Za-z0-9_-]{0,200}[A-Z])[A-Za-z0-9_-]{20,}+",
    ),
    ("an Azure storage key", ("AccountKey=",), r"AccountKey=[A-Za-z0-9+/]{86}=="),
    ("an Azure AI key", ("JQQJ99",), r"(?<!\w)[A-Za-z0-9]{40,60}JQQJ99[A-Za-z0-9]{20,30}(?!\w)"),
    ("an Azure client secret", ("8Q~",), r"(?<![\w~.-])[\w~.-]{3}8Q~[\w~.-]{31,34}(?![\w~.-])"),
    ("an AWS access key", ("AKIA", "ASIA"), r"(?<!\w)(?:AKIA|ASIA)[A-Z0-9]{16}(?<!EXAMPLE)(?!\w)"),
    ("a Hugging Face token", ("hf_",), r"(?<!\w)hf_[A-Za-z0-9]{30,}+(?!\w)"),
    ("a GitHub token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"(?<!\w)gh[pousr]_[A-Za-z0-9]{36,}+(?!\w)"),
    ("a GitHub token", ("github_pat_",), r"(?<!\w)github_pat_[A-Za-z0-9_]{50,}+"),
    ("a GitLab token", ("glpat-",), r"(?<![\w-])glpat-[A-Za-z0-9_-]{20,}+"),
    ("a Slack token", ("xoxa-", "xoxb-", "xoxp-", "xoxr-", "xoxs-"), r"(?<![\w-])xox[abprs]-[A-Za-z0-9-]{20,}+"),
    ("a Google API key", ("AIza",), r"(?<![\w-])AIza[A-Za-z0-9_-]{35}(?![\w-])"),
    ("a Stripe key", ("sk_live_", "rk_live_"), r"(?<!\w)[sr]k_live_[A-Za-z0-9]{20,}+(?!\w)"),
    ("a private key", ("PRIVATE KEY",), r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY"),
    ("a JSON web token", ("eyJ",), r"(?<![\w-])eyJ[\w-]{10,}+\.eyJ[\w-]{10,}+\.[\w-]{10,}+"),
    (
        "an API key",
        ("key", "Key", "KEY"),
        r"(?i:api[-_ ]?key|subscription[-_ ]key)[\"']?\s{0,3}[:=]\s{0,3}[\"']?[0-9a-f]{32}(?!\w)",
    ),
)
_PASSWORD_IN_ADDRESS = re.compile(
    r"(?<![\w+.-])[a-z][a-z0-9+.-]{1,15}://[^\s/:@'\"<>]{1,64}:([^\s/:@'\"<>]{8,64})@[\w.-]{3,}", re.ASCII
)
# Shapes that say little by themselves: they count where the value, which is the group, is as random as a key.
_NAMED_SECRETS: tuple[tuple[str, tuple[str, ...], re.Pattern[str], float], ...] = (
    ("a password in an address", ("://",), _PASSWORD_IN_ADDRESS, 2.5),
    *(
        (
            "a secret",
            (word, word.title(), word.upper()),
            re.compile(rf"(?i:{word}[\"']?\s{{0,3}}[:=]\s{{0,3}}[\"']?)([A-Za-z0-9+/_~.!$-]{{16,128}}+)"),
            3.5,
        )
        for word in ("password", "secret", "token")
    ),
)
_SECRET_SHAPES = tuple((kind, parts, re.compile(shape)) for kind, parts, shape in _SECRETS)
# Looking for one character is ten times faster than looking for a word, and these are rare in prose.
_RARE = "~=_QJVKS-"
_NAMED_PARTS = tuple(part for _, parts, _, _ in _NAMED_SECRETS for part in parts)
_MARKED_PARTS = tuple(
    (next((mark for mark in _RARE if mark in part), part), part) for _, parts, _ in _SECRETS for part in parts
)

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")
_INVENTED_EMAIL = re.compile(
    r"(?i)git@|.*[@.](?:example(?:\.\w+)?|test|invalid|localhost|local)$|.*@(?:test|domain)\.com$"
)
# Nine digits with little between them: what every number below has, and what hardly any other text has.
_MANY_DIGITS = re.compile(r"[0-9](?:[ ().-]{0,2}[0-9]){8}")
_SSN = re.compile(r"(?<![\w-])(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![\w-])")
_PHONE = re.compile(
    r"(?<![\w.+])(?:\+[1-9][0-9]{0,2}(?:[ .-]?\(?[0-9]{1,4}\)?){2,4}[ .-]?[0-9]{2,4}"
    r"|(?:\([0-9]{3}\) ?|(?:1[.-])?[0-9]{3}[.-])[0-9]{3}[.-][0-9]{4})(?![\w-])"
)
_FICTIONAL_PHONE = re.compile(r"555[ .-]?01[0-9]{2}$")
_CARD = re.compile(
    r"(?<![\w.-])(?<![0-9] )(?:4|5[1-5]|2[2-7]|3[47]|6011|65)[0-9](?:[ -]?[0-9]){10,16}(?![\w-]|\.[0-9])"
)
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?!\w)")


def may_hold_private(text: str) -> bool:
    """A quick look: where it says no, `find_private` finds nothing in `text` or a part of it."""
    if "@" in text or any(mark in text and part in text for mark, part in _MARKED_PARTS):
        return True
    if any(part in text for part in _NAMED_PARTS):
        return True
    return any(digit in text for digit in "0123456789") and _MANY_DIGITS.search(text) is not None


def find_private(text: str) -> Iterator[Private]:
    """Every secret and every piece of personal data that `text` seems to hold."""
    known: set[str] = set()
    for kind, parts, shape in _SECRET_SHAPES:
        if any(part in text for part in parts):
            for match in shape.finditer(text):
                known.add(match[0])
                yield Private("SECRET", kind, match[0])
    for kind, parts, shape, least in _NAMED_SECRETS:
        if any(part in text for part in parts):
            found = (match[1] for match in shape.finditer(text) if match[1] not in known)
            yield from (Private("SECRET", kind, value) for value in found if _is_random(value, least))
    if "@" in text:
        emails = (match[0] for match in _EMAIL.finditer(_PASSWORD_IN_ADDRESS.sub("", text)))
        yield from (Private("PERSONAL_DATA", "an e-mail address", e) for e in emails if not _INVENTED_EMAIL.match(e))
    if _MANY_DIGITS.search(text):
        yield from _find_numbers(text)


def _is_random(value: str, least: float) -> bool:
    """True for a value with letters and digits of at least so many bits of entropy a character."""
    if not any(char.isdigit() for char in value) or not any(char.isalpha() for char in value):
        return False
    counts = Counter(value).values()
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts) >= least


def _find_numbers(text: str) -> Iterator[Private]:
    yield from (Private("PERSONAL_DATA", "a US social security number", match[0]) for match in _SSN.finditer(text))
    phones = (match[0] for match in _PHONE.finditer(text))
    yield from (Private("PERSONAL_DATA", "a phone number", p) for p in phones if not _FICTIONAL_PHONE.search(p))
    cards = (match[0] for match in _CARD.finditer(text))
    yield from (Private("PERSONAL_DATA", "a payment card number", card) for card in cards if _passes_luhn(card))
    ibans = (match[0] for match in _IBAN.finditer(text))
    yield from (Private("PERSONAL_DATA", "an IBAN", iban) for iban in ibans if _passes_mod_97(iban))


def _passes_luhn(number: str) -> bool:
    digits = [int(digit) for digit in reversed(number) if digit.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _passes_mod_97(iban: str) -> bool:
    """ISO 13616: the first four characters go to the end, letters count from 10."""
    compact = iban.replace(" ", "")
    digits = "".join(str(int(character, 36)) for character in compact[4:] + compact[:4])
    return 15 <= len(compact) <= 34 and int(digits) % 97 == 1
