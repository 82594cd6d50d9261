"""Each process computes about as much as the others, and every row is computed once."""

from collections import Counter
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from trainer.data.pack.balancing import _by_length, _in_order, balanced, balanced_pairs
from trainer.data.pack.packing import common, make_packs
from trainer.data.render.rendering import Example

ROWS = st.lists(
    st.lists(st.integers(0, 2), min_size=2, max_size=12).map(lambda ids: Example(tuple(ids), tuple(ids))),
    min_size=1,
    max_size=10,
)


@given(ROWS, st.integers(1, 5), st.randoms(use_true_random=False), st.booleans())
def test_every_row_is_in_one_part_whatever_their_order(
    rows: list[Example], num_processes: int, random: Random, shared: bool
) -> None:
    parts = balanced(rows, num_processes, shared)
    assert len(parts) == num_processes
    assert Counter(row for part in parts for row in part) == Counter(rows)
    assert balanced(random.sample(rows, len(rows)), num_processes, shared) == parts


@given(ROWS, st.integers(2, 4))
def test_the_largest_part_is_the_smallest_of_both_ways(rows: list[Example], num_processes: int) -> None:
    def largest(parts: list[list[Example]]) -> int:
        return max(map(num_computed, parts))

    def of(parts: list[list[int]]) -> list[list[Example]]:
        return [[ordered[place] for place in part] for part in parts]

    ordered = sorted(rows, key=lambda row: (row.input_ids, row.labels))
    sizes = [len(row.input_ids) for row in ordered]
    overlaps = [0, *(common(a.input_ids, b.input_ids) for a, b in pairwise(ordered))]
    ways = _by_length(sizes, num_processes), _in_order(sizes, overlaps, num_processes)
    assert largest(balanced(rows, num_processes)) == min(largest(of(way)) for way in ways)


def num_computed(rows: list[Example]) -> int:
    shared = sum(common(a.input_ids, b.input_ids) for a, b in pairwise(rows))
    return sum(len(row.input_ids) for row in rows) - shared


@given(ROWS, st.integers(1, 4), st.booleans())
def test_both_answers_of_a_pair_go_to_one_process(rows: list[Example], num_processes: int, shared: bool) -> None:
    pairs = [((row,), (rows[0],)) for row in rows]
    parts = balanced_pairs(pairs, num_processes, shared)
    assert len(parts) == num_processes
    assert sorted(number for part in parts for number in part) == list(range(len(pairs)))


def test_pairs_with_one_prompt_go_to_one_process() -> None:
    rows = [*prompted(3, 6), *prompted(4, 6)]
    pairs = [((rows[at],), (rows[at + 3],)) for at in (0, 6, 1, 7, 2, 8)]
    assert sorted(map(sorted, balanced_pairs(pairs, 2))) == [[0, 2, 4], [1, 3, 5]]


def prompted(prompt: int, count: int) -> list[Example]:
    rows = [(*[prompt] * 100, number, 1) for number in range(count)]
    return [Example(row, (-100,) * 100 + row[100:]) for row in rows]


def test_rows_that_share_a_prompt_stay_with_one_process() -> None:
    first, second = balanced([*prompted(7, 8), *prompted(8, 8)], 2)
    assert {row.input_ids[0] for row in first} == {7}
    assert {row.input_ids[0] for row in second} == {8}
    assert num_computed(first) == 100 + 8 * 2
    tree = make_packs(first, 10_000)[0]
    assert len(tree.input_ids) == 100 + 8, "the last token of a row is only predicted"


def test_rows_with_nothing_in_common_are_dealt_by_length() -> None:
    rows = [Example((number,) * length, (number,) * length) for number, length in enumerate((90, 50, 40, 30, 30))]
    assert [num_computed(part) for part in balanced(rows, 2, shared=False)] == [120, 120]
