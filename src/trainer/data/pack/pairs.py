"""Packs of preference pairs: the prompt stands once, and both answers branch off it."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.data.pack.packing import Branch, Pack, Sharing, Unit, group_of, packs_of, padded_size, tree_size, trimmed
from trainer.data.render.rendering import Example

Answers = tuple[Sequence[Example], Sequence[Example]]  # the preferred answer to a prompt, and the other
Group = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PairPacks:
    """Packs that hold both answers of each of their pairs, and those of pairs that had to be cut."""

    whole: list[Pack]
    cut: list[Pack]


def make_pair_packs(pairs: Sequence[Answers], token_budget: int, sharing: Sharing | None = None) -> PairPacks:
    """Packs as `make_packs` makes them, where both answers of a pair stay together.

    A pair larger than the budget is cut, and so is one whose answers may not stand in one pack.
    """
    whole: dict[Group, list[Unit]] = {}
    cut: dict[Group, list[Unit]] = {}
    for number, pair in enumerate(pairs):
        rows = _rows(number, pair, sharing or Sharing())
        unit = sorted((row for row, _ in rows), key=lambda row: row.order)
        if (group := _common_group(unit, [group for _, group in rows], token_budget)) is not None:
            whole.setdefault(group, []).append(unit)
        else:
            _add_apart(cut, rows)
    return PairPacks(packs_of(whole, token_budget), packs_of(cut, token_budget))


def make_answer_packs(pairs: Sequence[Answers], token_budget: int, sharing: Sharing | None = None) -> list[Pack]:
    """Packs of answers that are only read: cut where the fewest tokens are computed, be it between two of a pair."""
    groups: dict[Group, list[Unit]] = {}
    for number, pair in enumerate(pairs):
        _add_apart(groups, _rows(number, pair, sharing or Sharing()))
    return packs_of(groups, token_budget)


def pair_size(pair: Answers) -> int:
    """Tokens of the tree of a pair: the least budget that does not cut it."""
    return tree_size(sorted((row for row, _ in _rows(0, pair, Sharing())), key=lambda row: row.order))


def _rows(number: int, pair: Answers, sharing: Sharing) -> list[tuple[Branch, Group]]:
    """The rows of both answers, and the group of each."""
    found = (
        (trimmed(example, sharing, 2 * number + branch), group_of(len(example.input_ids), sharing))
        for branch, examples in enumerate(pair)
        for example in examples
    )
    return [(row, group) for row, group in found if row is not None]


def _add_apart(groups: dict[Group, list[Unit]], rows: Sequence[tuple[Branch, Group]]) -> None:
    for row, group in rows:
        groups.setdefault(group, []).append((row,))


def _common_group(unit: Unit, groups: Sequence[Group], token_budget: int) -> Group | None:
    """The group in which the rows can stand in one pack, within the budget; None where there is none."""
    if not unit or len({side for _, side in groups}) > 1:
        return None
    group = max(groups)
    size = tree_size(unit) if group[0] == 0 else padded_size(unit)
    return group if group[0] < 2 and size <= token_budget else None
