"""The rows of a step dealt out to processes, so that each computes about the same number of tokens."""

from collections.abc import Sequence
from itertools import pairwise

from trainer.data.pack.packing import common
from trainer.data.render.rendering import Example


def balanced(examples: Sequence[Example], num_processes: int, shared: bool = True) -> list[list[Example]]:
    """Parts for as many processes; what rows of a part share counts once. They depend on no order of the examples.

    Rows that share much stay together, unless the largest part is smaller without that.
    """
    rows = sorted(examples, key=lambda example: (example.input_ids, example.labels))
    if num_processes == 1 or not rows:
        return [rows, *([] for _ in range(num_processes - 1))]
    ways = (
        [_by_length(rows, num_processes), _in_order(rows, num_processes)]
        if shared
        else [_by_length(rows, num_processes)]
    )
    return min(ways, key=lambda parts: max(map(num_computed, parts)))


def num_computed(rows: Sequence[Example]) -> int:
    """Tokens of the tree of sorted rows."""
    return sum(len(row.input_ids) for row in rows) - sum(common(a.input_ids, b.input_ids) for a, b in pairwise(rows))


def _by_length(rows: Sequence[Example], num_processes: int) -> list[list[Example]]:
    """The longest first, each to the part that has least."""
    parts: list[list[int]] = [[] for _ in range(num_processes)]
    loads = [0] * num_processes
    for number in sorted(range(len(rows)), key=lambda number: -len(rows[number].input_ids)):
        lightest = loads.index(min(loads))
        parts[lightest].append(number)
        loads[lightest] += len(rows[number].input_ids)
    return [[rows[number] for number in sorted(part)] for part in parts]


def _in_order(rows: Sequence[Example], num_processes: int) -> list[list[Example]]:
    """Runs of sorted rows; the largest is as small as it can be."""
    overlaps = [0, *(common(a.input_ids, b.input_ids) for a, b in pairwise(rows))]
    lowest, highest = max(len(row.input_ids) for row in rows), num_computed(rows)
    while lowest < highest:
        middle = (lowest + highest) // 2
        if len(_filled(rows, overlaps, middle)) <= num_processes:
            highest = middle
        else:
            lowest = middle + 1
    parts = _filled(rows, overlaps, lowest)
    return [*parts, *([] for _ in range(num_processes - len(parts)))]


def _filled(rows: Sequence[Example], overlaps: Sequence[int], most: int) -> list[list[Example]]:
    """Runs of at most `most` tokens each, as few as there can be."""
    parts: list[list[Example]] = [[]]
    size = 0
    for row, overlap in zip(rows, overlaps, strict=True):
        more = len(row.input_ids) - (overlap if parts[-1] else 0)
        if parts[-1] and size + more > most:
            parts.append([])
            size, more = 0, len(row.input_ids)
        parts[-1].append(row)
        size += more
    return parts
