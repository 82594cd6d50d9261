"""Each process computes about as much as the others, and every row is computed once."""

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from trainer.data.pack.balancing import _by_length, _in_order, balanced, num_computed
from trainer.data.pack.packing import make_packs
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

    ordered = sorted(rows, key=lambda row: (row.input_ids, row.labels))
    found = largest(balanced(rows, num_processes))
    assert found == min(largest(_by_length(ordered, num_processes)), largest(_in_order(ordered, num_processes)))


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
