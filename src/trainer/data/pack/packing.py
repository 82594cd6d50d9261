"""The examples of one optimizer step as prefix trees, cut into packs: what goes through the model at a time.

Conversations repeat a system prompt, a tool list or a history. As token sequences they form a trie, and a pack is a
trie laid out depth-first: each shared token stands in it, and is computed, once. How a step is cut changes speed and
memory and not the result: each pack returns sums, and the step divides them by its own number of supervised tokens.
"""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
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


@dataclass(frozen=True, slots=True)
class Sharing:
    """Which rows of a model may stand in one trie; None is no limit. Lengths are those of whole rows.

    `longest`: longer rows (than a layer's window) go through the model unshared.
    `boundary`: rows on either side never share a pack, since the largest position of a pack chooses its frequencies.
    `alone_over`: longer rows are a pack each, since their own length decides their frequencies.
    """

    longest: int | None = None
    boundary: int | None = None
    alone_over: int | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    """A row without what comes after its last supervised token, and where and what is scored."""

    ids: Ints
    position: Ints
    target: Ints

    @property
    def order(self) -> tuple[bytes, bytes]:
        """Sorts as its tokens and then its positions do, and compares at the speed of memory."""
        return self.ids.astype(">u4").tobytes(), self.position.astype(">u4").tobytes()


def make_packs(examples: Sequence[Example], token_budget: int, sharing: Sharing | None = None) -> list[Pack]:
    """Packs of at most `token_budget` tokens each; a row longer than that is a pack of its own.

    Cuts fall where the fewest shared tokens are computed twice. Neither the packs nor their order depend on the order
    of the examples. Rows without a supervised token are left out: they add nothing to the sums.
    """
    sharing = sharing or Sharing()
    groups: dict[tuple[int, int], list[_Row]] = {}
    for example in examples:
        if (row := _trimmed(example, sharing)) is not None:
            groups.setdefault(_group(len(example.input_ids), sharing), []).append(row)
    packs: list[Pack] = []
    for (kind, _), rows in sorted(groups.items(), key=lambda item: item[0]):
        rows.sort(key=lambda row: row.order)
        match kind:
            case 0:
                packs += [_trie(part, shared=True) for part in _cut(rows, token_budget)]
            case 1:
                packs += [_forest(part) for part in _by_length(rows, token_budget)]
            case _:
                packs += [_forest([row]) for row in rows]
    return packs


def _group(length: int, sharing: Sharing) -> tuple[int, int]:
    """0 shared, 1 padded, 2 alone; and the side of the boundary."""
    side = int(sharing.boundary is not None and length > sharing.boundary)
    if sharing.alone_over is not None and length > sharing.alone_over:
        return 2, side
    return int(sharing.longest is not None and length > sharing.longest), side


def _trimmed(example: Example, sharing: Sharing) -> _Row | None:
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
    return _Row(np.asarray(ids, dtype=np.int64), scored, labels[scored + 1])


def _cut(rows: Sequence[_Row], token_budget: int) -> Iterable[Sequence[_Row]]:
    """Cut sorted rows into runs within the budget, for the least tokens in all, then for the evenest packs.

    `best[end]` is that of the rows before `end`, with where its last run begins. Once a later beginning is better for
    some end, it is so for all ends after it (the squares of the sizes obey the quadrangle inequality), so each
    beginning is the one to take for one stretch of ends, and the queue holds those stretches.
    """
    overlap = [0, *(common(a.ids, b.ids) for a, b in pairwise(rows))]
    new_before = [0, *accumulate(len(row.ids) - shared for row, shared in zip(rows, overlap, strict=True))]
    best: list[tuple[float, float, int]] = [(0, 0, 0)]  # tokens and pack costs, sum of squares, the last beginning

    def weigh(begin: int, end: int) -> tuple[float, float, int]:
        size = new_before[end] - new_before[begin] + overlap[begin]
        if size > token_budget and begin < end - 1:
            return math.inf, math.inf, -begin  # of two that are too large, the later one is so for longer
        cost, squares, _ = best[begin]
        return cost + size + PACK_COST, squares + size * size, begin

    stretches: deque[tuple[int, int]] = deque()  # a beginning, and the first end that it is taken for
    for end in range(1, len(rows) + 1):
        _add_beginning(stretches, end - 1, len(rows), weigh)
        while len(stretches) > 1 and stretches[1][1] <= end:
            stretches.popleft()
        best.append(weigh(stretches[0][0], end))
    cuts = [len(rows)]
    while cuts[-1]:
        cuts.append(best[cuts[-1]][2])
    cuts.reverse()
    return [rows[begin:end] for begin, end in pairwise(cuts)]


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


def _by_length(rows: Sequence[_Row], token_budget: int) -> Iterable[Sequence[_Row]]:
    """Rows of similar length together, so that padded to the longest they stay within the budget."""
    parts: list[list[_Row]] = []
    for row in sorted(rows, key=lambda row: len(row.ids), reverse=True):
        if parts and len(parts[-1][0].ids) * (len(parts[-1]) + 1) <= token_budget:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts


def _trie(rows: Sequence[_Row], shared: bool) -> Pack:
    """Sorted rows depth-first: each adds what it does not share with the row before it."""
    ids: list[Ints] = []
    depths: list[Ints] = []
    ends: list[tuple[Ints, int]] = []
    scored: list[Ints] = []
    targets: list[Ints] = []
    path = np.empty(0, dtype=np.int64)  # where the current row's tokens stand
    size, before = 0, _Row(path, path, path)
    for row in rows:
        kept = common(before.ids, row.ids) if shared else 0
        ends.append((path[kept:], size))
        ids.append(row.ids[kept:])
        depths.append(np.arange(kept, len(row.ids)))
        path = np.concatenate([path[:kept], np.arange(size, size + len(row.ids) - kept)])
        size, before = size + len(row.ids) - kept, row
        scored.append(path[row.position])
        targets.append(row.target)
    subtree_end = np.full(size, size, dtype=np.int64)
    for closed, end in ends:
        subtree_end[closed] = end
    return _pack(np.concatenate(ids), np.concatenate(depths), subtree_end, _counted(scored, targets), shared)


def _forest(rows: Sequence[_Row]) -> Pack:
    return _trie(rows, shared=False)


def _counted(scored: Sequence[Ints], targets: Sequence[Ints]) -> tuple[Ints, Ints]:
    """Pairs of position and target [S, 2], each once and in order, and how often each occurs [S]."""
    pairs = np.stack([np.concatenate(scored), np.concatenate(targets)], axis=1)
    unique, counts = np.unique(pairs, axis=0, return_counts=True)
    return unique, counts


def _pack(
    ids: Ints,
    depths: Ints,
    subtree_end: Ints,
    supervision: tuple[Ints, Ints],
    shared: bool,
) -> Pack:
    import torch

    def tensor(array: Ints) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))

    pairs, counts = supervision
    layout = (tensor(ids), tensor(depths), tensor(subtree_end))
    return Pack(*layout, tensor(pairs[:, 0]), tensor(pairs[:, 1]), tensor(counts), int(counts.sum()), shared)
