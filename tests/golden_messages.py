"""What is said of each wrong row and config, as text to read: `python -m tests.golden_messages` writes it.

Tests of single rules assert what a sentence found, and where; the words of the whole sentence stand here only.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

FILE = Path(__file__).with_name("golden_messages.txt")
ADVICE = re.compile(r", expected |, did you mean |, it is called |; |, write it ")


def finding(message: str) -> str:
    """A message up to what is accepted and what to do: its code, its place and what was found."""
    return ADVICE.split(message, maxsplit=1)[0]


def golden_text() -> str:
    """All cases by title. It works in the current folder, which is to be empty."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    from tests.unit.config import test_load as config
    from tests.unit.data.rules import test_preferences as pairs
    from tests.unit.data.rules import test_row_checks as rows

    yield "# Rows"
    for name, (row, _) in rows.MALFORMED.items():
        yield from _case(name, rows.told(row, Path.cwd()))
    yield "\n# Preference rows"
    for name, (row, _) in pairs.MALFORMED.items():
        yield from _case(name, pairs.told(row, Path.cwd()))
    for title, texts in config.WRONG_TEXTS.items():
        yield f"\n# Configs: {title}"
        for name, text in texts.items():
            yield from _case(name, config.problems(text))
    yield "\n# Configs: overrides"
    for override in config.BAD_OVERRIDES:
        yield from _case(repr(override), config.problems(config.LEAST, override))


def _case(name: str, messages: list[str]) -> Iterator[str]:
    yield f"{name}:"
    yield from (f"  {message}" for message in messages)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        FILE.write_text(golden_text(), encoding="utf-8")
