"""The examples of one optimizer step as prefix trees, cut into packs: what goes through the model at a time.

Conversations repeat a system prompt, a tool list or a history. As token sequences they form a trie, and a pack is a
trie laid out depth-first: each shared token stands in it, and is computed, once. How a step is cut changes speed and
memory and not the result: each pack returns sums, and the step divides them by its own number of supervised tokens.
"""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainer.data.render.rendering import IGNORE_INDEX, Example

if TYPE_CHECKING:
    import torch

Ints = NDArray[np.int64]

PACK_COST = 32  # in tokens, of one more forward and backward, when cuts are weighed


@dataclass(frozen=True, slots=True)
class Pack:
    """One forward and backward over U tokens. All tensors are int64.

    A token's position is its depth in the trie, so what it was in its own conversation. Key k is visible to query q
    if k <= q < subtree_end[k]. The hidden state at `position` is scored against `target` as often as `weight` says:
    the number of conversations that share the token and are supervised there.
    """

    input_ids: "torch.Tensor"  # [U]
    position_ids: "torch.Tensor"  # [U]
    subtree_end: "torch.Tensor"  # [U]
    position: "torch.Tensor"  # [S]
    target: "torch.Tensor"  # [S]
    weight: "torch.Tensor"  # [S]
    num_supervised: int  # the sum of `weight`
    shared: bool = True  # False: rows stand one after the other and go through the model as a padded batch
    scored: "torch.Tensor | None" = None  # [L], of rows that are answers of pairs: where each of their tokens is scored
    answer: "torch.Tensor | None" = None  # [L], and the answer that the token belongs to, 2 * pair + 1 if non-preferred


@dataclass(frozen=True, slots=True)
class Sharing:
    """Rows of a model that may stand in one trie; None is no limit. Lengths are those of whole rows.

    `longest`: longer rows (than a layer's window) go through the model unshared.
    `boundary`: rows on either side never share a pack, since the largest position of a pack chooses its frequencies.
    `alone_over`: longer rows are a pack each, since their own length decides their frequencies.
    """

    longest: int | None = None
    boundary: int | None = None
    alone_over: int | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """A row without what comes after its last supervised token, and where and what is scored."""

    ids: Ints
    position: Ints
    target: Ints
    answer: int | None = None  # of a pair

    @property
    def order(self) -> tuple[bytes, bytes]:
        """Sorts as its tokens and then its positions do, and compares at the speed of memory."""
        return self.ids.astype(">u4").tobytes(), self.position.astype(">u4").tobytes()


Unit = Sequence[Branch]  # sorted rows that stay in one pack


def make_packs(examples: Sequence[Example], token_budget: int, sharing: Sharing | None = None) -> list[Pack]:
    """Packs of at most `token_budget` tokens each; a row longer than that is a pack of its own.

    Cuts fall where the fewest shared tokens are computed twice. Neither the packs nor their order depend on the order
    of the examples. Rows without a supervised token are left out: they add nothing to the sums.
    """
    sharing = sharing or Sharing()
    groups: dict[tuple[int, int], list[Unit]] = {}
    for example in examples:
        if (row := trimmed(example, sharing)) is not None:
            groups.setdefault(group_of(len(example.input_ids), sharing), []).append((row,))
    return packs_of(groups, token_budget)


def packs_of(groups: Mapping[tuple[int, int], list[Unit]], token_budget: int) -> list[Pack]:
    """Packs of units that never part, of rows by their kind and side of the boundary."""
    packs: list[Pack] = []
    for (kind, _), units in sorted(groups.items(), key=lambda item: item[0]):
        units.sort(key=lambda unit: [row.order for row in unit])
        match kind:
            case 0:
                packs += [_trie(_flat(part), shared=True) for part in _cut(units, token_budget)]
            case 1:
                packs += [_forest(_flat(part)) for part in _by_length(units, token_budget)]
            case _:
                packs += [_forest(unit) for unit in units]
    return packs


def _flat(units: Sequence[Unit]) -> Sequence[Branch]:
    """The rows of some units, sorted."""
    rows = [row for unit in units for row in unit]
    return rows if len(rows) == len(units) else sorted(rows, key=lambda row: row.order)


def tree_size(rows: Sequence[Branch]) -> int:
    """Tokens of the tree of sorted rows."""
    return sum(len(row.ids) for row in rows) - sum(common(a.ids, b.ids) for a, b in pairwise(rows))


def padded_size(rows: Sequence[Branch]) -> int:
    """Tokens of the rows as a padded batch."""
    return len(rows) * max((len(row.ids) for row in rows), default=0)


def _overlap(before: Unit, unit: Unit) -> int:
    """Tokens of `unit` that a pack with `before` has already."""
    if len(before) == len(unit) == 1:
        return common(before[0].ids, unit[0].ids)
    return tree_size(before) + tree_size(unit) - tree_size(_flat((before, unit)))


def group_of(length: int, sharing: Sharing) -> tuple[int, int]:
    """0 shared, 1 padded, 2 alone; and the side of the boundary."""
    side = int(sharing.boundary is not None and length > sharing.boundary)
    if sharing.alone_over is not None and length > sharing.alone_over:
        return 2, side
    return int(sharing.longest is not None and length > sharing.longest), side


def trimmed(example: Example, sharing: Sharing, answer: int | None = None) -> Branch | None:
    """The last supervised token is only predicted; it and what follows need not be read. None where none is.

    Rows whose length matters to the model's frequencies keep it.
    """
    labels = np.asarray(example.labels, dtype=np.int64)
    scored = np.flatnonzero(labels[1:] != IGNORE_INDEX)
    if not len(scored):
        return None
    limits = [limit for limit in (sharing.boundary, sharing.alone_over) if limit is not None]
    whole = any(len(example.input_ids) > limit for limit in limits)
    ids = example.input_ids if whole else example.input_ids[: int(scored[-1]) + 1]
    return Branch(np.asarray(ids, dtype=np.int64), scored, labels[scored + 1], answer)


def _cut(units: Sequence[Unit], token_budget: int) -> Iterable[Sequence[Unit]]:
    """Cut sorted units into runs within the budget, for the least tokens in all, then for the evenest packs.

    `best[end]` is that of the units before `end`, with where its last run begins. Once a later beginning is better for
    some end, it is so for all ends after it (the squares of the sizes obey the quadrangle inequality), so each
    beginning is the one to take for one stretch of ends, and the queue holds those stretches.
    """
    overlap = [0, *(_overlap(a, b) for a, b in pairwise(units))]
    new_before = [0, *accumulate(tree_size(unit) - shared for unit, shared in zip(units, overlap, strict=True))]
    best: list[tuple[float, float, int]] = [(0, 0, 0)]  # tokens and pack costs, sum of squares, the last beginning

    def weigh(begin: int, end: int) -> tuple[float, float, int]:
        size = new_before[end] - new_before[begin] + overlap[begin]
        if size > token_budget and begin < end - 1:
            return math.inf, math.inf, -begin  # of two that are too large, the later one is so for longer
        cost, squares, _ = best[begin]
        return cost + size + PACK_COST, squares + size * size, begin

    stretches: deque[tuple[int, int]] = deque()  # a beginning, and the first end that it is taken for
    for end in range(1, len(units) + 1):
        _add_beginning(stretches, end - 1, len(units), weigh)
        while len(stretches) > 1 and stretches[1][1] <= end:
            stretches.popleft()
        best.append(weigh(stretches[0][0], end))
    cuts = [len(units)]
    while cuts[-1]:
        cuts.append(best[cuts[-1]][2])
    cuts.reverse()
    return [units[begin:end] for begin, end in pairwise(cuts)]


def _add_beginning(
    stretches: deque[tuple[int, int]], new: int, last: int, weigh: Callable[[int, int], tuple[float, float, int]]
) -> None:
    """Give the beginning `new` the ends, up to `last`, for which it is better than those before it."""
    first = new + 1
    while stretches:
        before, start = stretches[-1]
        ends = range(max(start, new + 1), last + 1)
        if weigh(new, ends.start) >= weigh(before, ends.start):
            first = ends.start + bisect_left(ends, True, key=lambda end: weigh(new, end) < weigh(before, end))
            break
        stretches.pop()
    if first <= last:
        stretches.append((new, first))


def common(a: Sequence[int] | Ints, b: Sequence[int] | Ints) -> int:
    """Tokens that both begin with."""
    shorter = min(len(a), len(b))
    differs = np.asarray(a[:shorter]) != np.asarray(b[:shorter])
    return int(differs.argmax()) if differs.any() else shorter


def _by_length(units: Sequence[Unit], token_budget: int) -> Iterable[Sequence[Unit]]:
    """Units of similar length together, so that padded to the longest they stay within the budget."""
    parts: list[list[Unit]] = []
    for unit in sorted(units, key=lambda unit: max(len(row.ids) for row in unit), reverse=True):
        if parts and padded_size([row for other in (*parts[-1], unit) for row in other]) <= token_budget:
            parts[-1].append(unit)
        else:
            parts.append([unit])
    return parts


def _trie(rows: Sequence[Branch], shared: bool) -> Pack:
    """Sorted rows depth-first: each adds what it does not share with the row before it."""
    ids: list[Ints] = []
    depths: list[Ints] = []
    ends: list[tuple[Ints, int]] = []
    scored: list[Ints] = []
    targets: list[Ints] = []
    answers: list[int | None] = []
    path = np.empty(0, dtype=np.int64)  # where the current row's tokens stand
    size, before = 0, Branch(path, path, path)
    for row in rows:
        kept = common(before.ids, row.ids) if shared else 0
        ends.append((path[kept:], size))
        ids.append(row.ids[kept:])
        depths.append(np.arange(kept, len(row.ids)))
        path = np.concatenate([path[:kept], np.arange(size, size + len(row.ids) - kept)])
        size, before = size + len(row.ids) - kept, row
        scored.append(path[row.position])
        targets.append(row.target)
        answers.append(row.answer)
    subtree_end = np.full(size, size, dtype=np.int64)
    for closed, end in ends:
        subtree_end[closed] = end
    layout = np.concatenate(ids), np.concatenate(depths), subtree_end
    places = np.stack([np.concatenate(scored), np.concatenate(targets)], axis=1)  # each once, and how often, below
    if any(answer is None for answer in answers):
        unique, counts = np.unique(places, axis=0, return_counts=True)
        return _pack(layout, unique, counts, shared)
    unique, inverse, counts = np.unique(places, axis=0, return_inverse=True, return_counts=True)
    owners = np.repeat(np.array(answers, dtype=np.int64), [len(part) for part in scored])
    return _pack(layout, unique, counts, shared, inverse.reshape(-1), owners)


def _forest(rows: Sequence[Branch]) -> Pack:
    return _trie(rows, shared=False)


def _pack(
    layout: tuple[Ints, Ints, Ints],
    places: Ints,
    counts: Ints,
    shared: bool,
    scored: Ints | None = None,
    answer: Ints | None = None,
) -> Pack:
    """The pack of ids, depths and subtree ends, with scored places [S, 2], positions and targets, and their counts."""
    import torch

    def tensor(array: Ints) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))

    ids, depths, ends = map(tensor, layout)
    positions, targets, weights = tensor(places[:, 0]), tensor(places[:, 1]), tensor(counts)
    owners = (None, None) if scored is None or answer is None else (tensor(scored), tensor(answer))
    return Pack(ids, depths, ends, positions, targets, weights, int(counts.sum()), shared, *owners)
