"""The conversations of each step: a shuffled order that depends on the seed and the epoch alone."""

import random
from collections.abc import Iterator, Mapping, Sequence


def rows_per_epoch(counts: Mapping[str, int], weights: Mapping[str, float]) -> int:
    """Conversations in an epoch: each file's rows times its weight, rounded, and at least one of each file."""
    return sum(_share(count, weights[file]) for file, count in counts.items())


def epoch_order(files: Sequence[str], weights: Mapping[str, float], seed: int, epoch: int) -> list[int]:
    """Row numbers of one epoch in order. `files[i]` is the file of row i.

    A file of weight 2.5 gives every row twice and a random half once more, another half in another epoch.
    """
    shuffle = random.Random(f"{seed}/{epoch}")
    members: dict[str, list[int]] = {}
    for row, file in enumerate(files):
        members.setdefault(file, []).append(row)
    order: list[int] = []
    for file, rows in members.items():
        whole, rest = divmod(_share(len(rows), weights[file]), len(rows))
        order += rows * whole + shuffle.sample(rows, rest)
    shuffle.shuffle(order)
    return order


def _share(count: int, weight: float) -> int:
    return max(1, round(count * weight))


class StepOrder:
    """Row numbers for each optimizer step of an epoch: torch's batch sampler, one batch = one step.

    The last step of an epoch holds what is left.
    """

    def __init__(self, files: Sequence[str], weights: Mapping[str, float], batch_size: int, seed: int) -> None:
        self.files, self.weights, self.batch_size, self.seed = files, weights, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = epoch_order(self.files, self.weights, self.seed, self.epoch)
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def __len__(self) -> int:
        counts: dict[str, int] = {}
        for file in self.files:
            counts[file] = counts.get(file, 0) + 1
        return -(-rows_per_epoch(counts, self.weights) // self.batch_size)
