"""The kinds of rows. A new one is declared as a `Kind` in a module of its own, as `qa.py` does, and listed here."""

from trainer.errors import ConfigError, similar
from trainer.workshop.generate.kind import Kind
from trainer.workshop.generate.preference import PREFERENCE
from trainer.workshop.generate.qa import QA
from trainer.workshop.generate.texts import CLASSIFY, REWRITE, SUMMARISE
from trainer.workshop.generate.tool_use import TOOL_USE

KINDS: dict[str, Kind] = {kind.name: kind for kind in (QA, SUMMARISE, CLASSIFY, REWRITE, PREFERENCE, TOOL_USE)}


def find_kind(name: str) -> Kind:
    """The kind of that name. Raises: ConfigError."""
    if name not in KINDS:
        known = ", ".join(KINDS)
        raise ConfigError(f"--kind: is {name!r}{similar(name, KINDS)}, expected one of: {known}; choose another")
    return KINDS[name]
