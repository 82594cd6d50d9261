"""One file as two: rows to train on, and rows held out from the same population that share no prompt with them."""

import random
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.data.conversations import Conversation
from trainer.data.files.new_files import copy_rows, new_files
from trainer.data.files.related_rows import Group, related_rows
from trainer.data.quoting import printable
from trainer.data.read.rows import read_conversations
from trainer.data.rules.across_rows import system_prompt
from trainer.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class Share:
    """Division of the rows with one system prompt; `prompt` is None for rows without one."""

    prompt: str | None
    num_train: int
    num_validation: int


@dataclass(frozen=True, slots=True)
class Split:
    """Result of a split; `num_together` rows have another row at their side because of a shared prompt.

    `has_pairs`: they are preference rows.
    """

    train: Path
    validation: Path
    num_wanted: int
    num_blank: int
    num_together: int
    shares: tuple[Share, ...]
    has_pairs: bool = False

    @property
    def num_train(self) -> int:
        return sum(share.num_train for share in self.shares)

    @property
    def num_validation(self) -> int:
        return sum(share.num_validation for share in self.shares)


def split_file(
    source: Path,
    train: Path,
    validation: Path,
    *,
    share: float = 0.1,
    num_rows: int | None = None,
    seed: int = 42,
    force: bool = False,
) -> Split:
    """Copy each row of `source` to one of two new files, byte for byte and in its order.

    Held out are `num_rows` rows, else a `share` of them; fewer where rows that belong together do not fit.

    Raises: DataError, when a row has an error or a file exists (unless `force`); ConfigError, when so many rows
    cannot be held out. Nothing is written then.
    """
    report = read_conversations(source)
    if errors := report.errors:
        name = printable(str(source))
        found = "has an error" if len(errors) == 1 else f"has {len(errors):,} errors"
        advice = f"look at all rules with: trainer data check {shlex.quote(name)}"
        raise DataError(f"{name}: {found}, expected none; {advice}", *map(str, errors))
    rows = report.conversations
    num_wanted = max(1, round(share * len(rows))) if num_rows is None else num_rows
    if not 0 < num_wanted < len(rows):
        accepted = f"from 1 to {len(rows) - 1:,}" if len(rows) > 1 else "a file of two rows or more"
        raise ConfigError(f"--rows: {num_wanted:,} of {len(rows):,} rows to hold out, expected {accepted}; change it")
    groups = related_rows(rows)
    if len(groups) == 1:
        found = f"all {len(rows):,} rows belong together, as they ask the same or continue one another"
        raise DataError(f"{printable(str(source))}: {found}, expected other rows too; add some")
    held_out = choose(groups, [system_prompt(row) for row in rows], num_wanted, seed)
    if not held_out:
        accepted = f"at least {min(map(len, groups)):,}, since rows that ask the same stay together"
        raise ConfigError(f"--rows: {num_wanted:,} cannot be held out, expected {accepted}; raise it")
    lines = {rows[index].line for index in held_out}
    with new_files([train, validation], [source], force=force) as (train_file, validation_file):
        num_blank = copy_rows(source, lambda line: validation_file if line in lines else train_file)
    together = sum(len(group) for group in groups if len(group) > 1)
    has_pairs = any(row.non_preferred for row in rows)
    return Split(train, validation, num_wanted, num_blank, together, tuple(_shares(rows, held_out)), has_pairs)


def choose(groups: Sequence[Group], prompts: Sequence[str | None], num_wanted: int, seed: int) -> set[int]:
    """The rows to hold out: whole groups, from the rows of each system prompt in proportion.

    Never more than `num_wanted`. A system prompt that is held out is also trained, where that can be had.
    """
    order = random.Random(seed)
    shuffled: dict[str | None, list[Group]] = defaultdict(list)
    for group in order.sample(groups, len(groups)):
        shuffled[prompts[group[0]]].append(group)
    quotas = _quotas({prompt: sum(map(len, members)) for prompt, members in shuffled.items()}, num_wanted)
    chosen: set[int] = set()
    for prompt, members in shuffled.items():
        chosen |= _take(members, quotas[prompt], num_kept=1)
    for num_kept in (1, 0):  # what one system prompt could not give, others do
        for members in shuffled.values():
            chosen |= _take(members, num_wanted - len(chosen), num_kept)
    return chosen


def _quotas(sizes: Mapping[str | None, int], num_wanted: int) -> dict[str | None, int]:
    """`num_wanted` in proportion to `sizes`, by largest remainders."""
    exact = {key: num_wanted * size / sum(sizes.values()) for key, size in sizes.items()}
    quotas = {key: int(share) for key, share in exact.items()}
    by_remainder = sorted(exact, key=lambda key: quotas[key] - exact[key])
    for key in by_remainder[: num_wanted - sum(quotas.values())]:
        quotas[key] += 1
    return quotas


def _take(groups: list[Group], num_rows: int, num_kept: int) -> set[int]:
    """Take groups of at most `num_rows` rows in all out of `groups`, which keeps at least `num_kept` of them."""
    taken: set[int] = set()
    kept: list[Group] = []
    for position, group in enumerate(groups):
        can_spare = len(kept) + len(groups) - position > num_kept
        if can_spare and len(taken) + len(group) <= num_rows:
            taken.update(group)
        else:
            kept.append(group)
    groups[:] = kept
    return taken


def _shares(rows: Sequence[Conversation], held_out: set[int]) -> Iterator[Share]:
    """The rows with each system prompt, the most frequent one first."""
    counts: dict[str | None, list[int]] = defaultdict(lambda: [0, 0])
    for index, row in enumerate(rows):
        counts[system_prompt(row)][index in held_out] += 1
    for prompt, (num_train, num_validation) in sorted(counts.items(), key=lambda item: -sum(item[1])):
        yield Share(prompt, num_train, num_validation)
