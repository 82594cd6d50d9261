"""The rows of a step dealt out to processes, so that each computes about the same number of tokens."""

from collections.abc import Sequence
from itertools import pairwise

from trainer.data.pack.packing import common
from trainer.data.pack.pairs import Answers, pair_size
from trainer.data.render.rendering import Example


def balanced(examples: Sequence[Example], num_processes: int, shared: bool = True) -> list[list[Example]]:
    """Parts for as many processes; what rows of a part share counts once. They depend on no order of the examples.

    Rows that share much stay together, unless the largest part is smaller without that.
    """
    rows = sorted(examples, key=lambda example: (example.input_ids, example.labels))
    if num_processes == 1:
        return [rows]
    overlaps = [0, *(common(a.input_ids, b.input_ids) for a, b in pairwise(rows))]
    parts = _dealt([len(row.input_ids) for row in rows], overlaps, num_processes, shared)
    return [[rows[number] for number in part] for part in parts]


def balanced_pairs(pairs: Sequence[Answers], num_processes: int, shared: bool = True) -> list[list[int]]:
    """The numbers of the pairs of each of as many parts, as `balanced` makes them of rows; no pair is cut."""
    if num_processes == 1:
        return [list(range(len(pairs)))]
    keys = [[(row.input_ids, row.labels) for answer in pair for row in answer] for pair in pairs]
    order = sorted(range(len(pairs)), key=keys.__getitem__)
    overlaps = [0, *(common(keys[a][0][0], keys[b][0][0]) for a, b in pairwise(order))]
    parts = _dealt([pair_size(pairs[number]) for number in order], overlaps, num_processes, shared)
    return [[order[place] for place in part] for part in parts]


def _dealt(sizes: Sequence[int], overlaps: Sequence[int], num_processes: int, shared: bool) -> list[list[int]]:
    """Places of sorted rows, or pairs, of so many tokens, each of which shares `overlaps` with the one before it."""
    if not sizes:
        return [[] for _ in range(num_processes)]
    ways = [_by_length(sizes, num_processes)]
    if shared:
        ways.append(_in_order(sizes, overlaps, num_processes))
    return min(ways, key=lambda parts: max(_computed(part, sizes, overlaps) for part in parts))


def _computed(part: Sequence[int], sizes: Sequence[int], overlaps: Sequence[int]) -> int:
    """Tokens of the tree of a part: of sorted rows, two share the least that any two between them do."""
    return sum(sizes[place] for place in part) - sum(min(overlaps[a + 1 : b + 1]) for a, b in pairwise(part))


def _by_length(sizes: Sequence[int], num_processes: int) -> list[list[int]]:
    """The longest first, each to the part that has least."""
    parts: list[list[int]] = [[] for _ in range(num_processes)]
    loads = [0] * num_processes
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        lightest = loads.index(min(loads))
        parts[lightest].append(place)
        loads[lightest] += sizes[place]
    return [sorted(part) for part in parts]


def _in_order(sizes: Sequence[int], overlaps: Sequence[int], num_processes: int) -> list[list[int]]:
    """Runs of sorted rows; the largest is as small as it can be."""
    lowest, highest = max(sizes), sum(sizes) - sum(overlaps)
    while lowest < highest:
        middle = (lowest + highest) // 2
        if len(_filled(sizes, overlaps, middle)) <= num_processes:
            highest = middle
        else:
            lowest = middle + 1
    parts = _filled(sizes, overlaps, lowest)
    return [*parts, *([] for _ in range(num_processes - len(parts)))]


def _filled(sizes: Sequence[int], overlaps: Sequence[int], most: int) -> list[list[int]]:
    """Runs of at most `most` tokens each, as few as there can be."""
    parts: list[list[int]] = [[]]
    size = 0
    for place, (whole, overlap) in enumerate(zip(sizes, overlaps, strict=True)):
        more = whole - (overlap if parts[-1] else 0)
        if parts[-1] and size + more > most:
            parts.append([])
            size, more = 0, whole
        parts[-1].append(place)
        size += more
    return parts
