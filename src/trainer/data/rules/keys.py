"""Keys that the format does not know, with the one that was probably meant."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from trainer.data.quoting import listed, quoted
from trainer.data.rules.findings import FindingList

_OTHER_NAMES = {"from": "role", "speaker": "role", "value": "content", "text": "content", "conversation": "messages"}
NUM_SHOWN_KEYS = 5


def check_keys(
    fields: Mapping[str, Any],
    known: Collection[str],
    where: str,
    findings: FindingList,
    named: Sequence[str] = (),
) -> bool:
    """True if all keys are known. All others are one finding, which lists the keys `named`, or else all."""
    unknown = [key for key in fields if key not in known]
    if unknown:
        shown = unknown[:NUM_SHOWN_KEYS]
        noun = "the unknown key" if len(unknown) == 1 else "the unknown keys"
        words = listed([quoted(key) for key in shown] + ["more"] * (len(unknown) > len(shown)))
        findings.add(
            "UNKNOWN_KEY", where, f"has {noun} {words}", listed(named or sorted(known), "or"), _advice(shown, known)
        )
    return not unknown


def meant_key(key: str, known: Collection[str]) -> str | None:
    """The known key that `key` is a slip or another format's name of."""
    if _OTHER_NAMES.get(key) in known:
        return _OTHER_NAMES[key]
    return next(iter(get_close_matches(key[:64], known, n=1)), None)


def _advice(unknown: list[str], known: Collection[str]) -> str | None:
    meant = [name for key in unknown if (name := meant_key(key, known))]
    return f"did you mean {listed([quoted(name) for name in meant])}?" if meant else None
