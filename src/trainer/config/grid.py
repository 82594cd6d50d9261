"""A grid of settings: `training.learning_rate=1e-4,2e-4 lora.r=8,16` becomes one set of overrides for each run."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from trainer.errors import ConfigError, quoted

FIXED = ("run.name", "run.root", "backend.kind", "backend.spend_cap")  # one for the whole grid
LONGEST_NAME, LONGEST_VALUE, SHORT_DIGEST = 100, 24, 6
_OPENING, _CLOSING, _QUOTES = "[{", "]}", "'\""


@dataclass(frozen=True, slots=True)
class Combination:
    """One run of a grid: its overrides, and of these the settings that vary."""

    overrides: tuple[str, ...]
    varied: tuple[tuple[str, str], ...]

    def name(self, stem: str) -> str:
        """The run's name, which the values alone decide: a grid that grows keeps the names of its runs."""
        leaves = Counter(key.rpartition(".")[2] for key, _ in self.varied)
        words = (
            f"{leaf if leaves[leaf := key.rpartition('.')[2]] == 1 else key}-{_word(value)}"
            for key, value in self.varied
        )
        name = "-".join([stem, *words])
        if len(name) <= LONGEST_NAME:
            return name
        digest = _digest(name)
        return f"{name[: LONGEST_NAME - len(digest) - 1]}-{digest}"

    def __str__(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.varied)


def combinations(settings: Sequence[str], most: int) -> list[Combination]:
    """Every combination of the values, the last setting varying fastest. Raises: ConfigError, with all mistakes."""
    problems: list[str] = []
    values: dict[str, list[str]] = {}
    for text in settings:
        key, equals, listed = text.partition("=")
        found = _values(listed)
        if not equals or not all(key.split(".")):
            problems.append(f"sweep {quoted(text)}: not understood, expected section.name=value,value")
        elif key in values:
            problems.append(f"sweep {quoted(text)}: {key} is given twice, expected all its values in one list")
        elif len(found) > 1:
            problems += [f"sweep {quoted(text)}: {words}" for words in _unfit(key, found)]
        values.setdefault(key, found)
    num_runs = prod(map(len, values.values()))
    if not problems and num_runs < 2:
        problems.append("trainer sweep: got no setting with two values, expected one; add e.g. lora.r=8,16")
    if num_runs > most:
        problems.append(
            f"trainer sweep: the grid has {num_runs:,} runs, expected {most:,} at most; give fewer values, or "
            f"--max-runs {num_runs}"
        )
    if problems:
        raise ConfigError(*problems)
    varied = {key for key, found in values.items() if len(found) > 1}
    return [_combination(dict(zip(values, chosen, strict=True)), varied) for chosen in product(*values.values())]


def _combination(chosen: dict[str, str], varied: set[str]) -> Combination:
    return Combination(
        tuple(f"{key}={value}" for key, value in chosen.items()),
        tuple((key, value) for key, value in chosen.items() if key in varied),
    )


def _unfit(key: str, found: Sequence[str]) -> list[str]:
    """Mistakes in the list of a setting's values."""
    words = [f"{quoted(value)} is given twice, expected once" for value, count in Counter(found).items() if count > 1]
    if "" in found:
        words.append("holds an empty value, expected one between all commas; put a text with commas in quotes")
    if key in FIXED:
        words.append(f"{key} has several values, expected one for the whole grid")
    return words


def _values(text: str) -> list[str]:
    """The values between commas that stand in no bracket and no quotes."""
    values, depth, quote, before = [""], 0, "", ","
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in _QUOTES and before in f",:{_OPENING}":
            quote = char
        elif char in _OPENING:
            depth += 1
        elif char in _CLOSING:
            depth = max(0, depth - 1)
        elif char == "," and depth == 0:
            values.append("")
            before = char
            continue
        values[-1] += char
        before = before if char.isspace() else char
    return [value.strip() for value in values]


def _word(value: str) -> str:
    """A value as a part of a name; where it does not fit whole, its end with a digest."""
    word = re.sub(r"[^A-Za-z0-9._-]+", "_", value)
    return word if word == value and len(word) <= LONGEST_VALUE else f"{word[-LONGEST_VALUE:]}-{_digest(value)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:SHORT_DIGEST]
